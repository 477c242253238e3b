"""The place of a model's files, and the key for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True)
class Source:
    """The place of one model's files: a folder, or a repository of the hub.

    Attributes:
        name: Folder or hub name.
        revision: Commit, branch or tag; None for the main branch.
        cache_dir: Folder for downloaded files; None for transformers' own.
        local_files_only: Whether to read the cache and send no request.
        trust_remote_code: Whether code from the repository may run in this process.
        key: The hub's key, for gated and private repositories; None for the one that huggingface_hub has stored.
    """

    name: str
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    key: SecretStr | None = field(default=None, repr=False)

    def censored(self, text: str) -> str:
        """Return a text with the key replaced by asterisks."""
        return text.replace(self.key.get_secret_value(), "**********") if self.key else text
