"""Where a model's files are, and the key that opens them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True)
class Source:
    """Where the files of one model are: a folder, or a repository of the hub at one commit.

    Attributes:
        name: Folder or hub name.
        revision: Commit, branch or tag; None for the main branch.
        cache_dir: Folder that holds, or gets, downloaded files.
        local_files_only: Whether to read the cache and ask nobody.
        trust_remote_code: Whether code from the repository may run in this process.
        key: Opens gated and private repositories.
    """

    name: str
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    key: SecretStr | None = field(default=None, repr=False)

    def censored(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self.key.get_secret_value(), "**********") if self.key else text
