"""A model's files: the key that opens them, where they come from, and what it means when they cannot be had.

The files are asked for once, with a HEAD of the config. The answer names the commit, and everything after is read at
that commit: config, tokenizer and weights belong together, and what is in the cache costs no further question. When
the hub does not answer, or refuses, the cache is all there is.

The key is a `SecretStr` until the moment of a call, and every error leaves this module without the frames it came
through: the local variables of transformers and huggingface_hub hold the key, and tools that report errors show them.
"""

from __future__ import annotations

import logging
import traceback
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from langchain_petals.engine.hub_errors import chain, stems_from, translated
from langchain_petals.errors import AccessDeniedError, HubUnreachableError, PetalsError
from langchain_petals.hub_key import checked_key

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_CONFIG = "config.json"
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Repository:
    """The files of one model: a folder, or a repository of the hub at one commit.

    Attributes:
        name: Folder or hub name.
        revision: Commit to read, or what the user asked for where the hub has not told the commit.
        cache_dir: Folder that holds, or gets, downloaded files.
        local_files_only: Whether to read the cache and ask nobody.
        trust_remote_code: Whether code from the repository may run in this process.
        key: Opens gated and private repositories.
        refusal: Why the hub was not to be had; the cache is read instead.
    """

    name: str
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    key: SecretStr | None = field(default=None, repr=False)
    refusal: PetalsError | None = field(default=None, repr=False)

    def read(self, load: Callable[..., Any], **options: Any) -> Any:
        """Call one of transformers' loaders for this repository.

        Args:
            load: A `from_pretrained`.
            **options: More keyword arguments for it.

        Raises:
            ModelLoadError: The files could not be had; the subclass tells why.
            InvalidRequestError: The files do not fit the arguments.
        """
        arguments = {
            "revision": self.revision,
            "cache_dir": self.cache_dir,
            "local_files_only": self.local_files_only,
            "trust_remote_code": self.trust_remote_code,
        }
        try:
            return load(self.name, token=self._token(), **arguments, **options)
        except BaseException as error:  # noqa: BLE001 - raised below, where no frame of the loader hangs on it
            problem = self._explained(error)
        raise problem

    def weights_format(self) -> dict[str, bool]:
        """Return the argument that makes transformers read safetensors, or pickles where there is nothing else.

        A pickle is a program. PyTorch runs no code from it any more, but a file that cannot hold code is better.
        """
        if any(map(self._has, _SAFETENSORS)):
            return {"use_safetensors": True}
        if any(map(self._has, _PICKLES)):
            warnings.warn(
                f"{self.name!r} has its weights in pickles only, which can hold harmful code. Use it if you trust its "
                "authors; better, ask them for safetensors.",
                stacklevel=2,
            )
            return {"use_safetensors": False}
        return {}  # transformers says what is missing

    def _token(self) -> str | bool:
        """Return what huggingface_hub takes for a key. False keeps it from looking for another one by itself."""
        return self.key.get_secret_value() if self.key else False

    def _is_cached(self, filename: str) -> bool | None:
        """Return whether the cache has a file; None if it cannot tell whether the repository has it."""
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - heavy

        found = try_to_load_from_cache(self.name, filename, cache_dir=self.cache_dir, revision=self.revision)
        return None if found is None else isinstance(found, str)

    def _has(self, filename: str) -> bool:
        if Path(self.name).is_dir():
            return (Path(self.name) / filename).is_file()
        cached = self._is_cached(filename)
        if cached is not None or self.local_files_only:
            return bool(cached)
        try:
            self._ask(filename)
        except BaseException as error:  # noqa: BLE001 - as in `read`
            problem = None if stems_from(error, "EntryNotFoundError") else self._explained(error)
        else:
            return True
        if problem is not None:
            raise problem
        return False

    def _ask(self, filename: str) -> str | None:
        """Return the commit at which the hub has a file for this key."""
        import huggingface_hub  # noqa: PLC0415 - heavy

        url = huggingface_hub.hf_hub_url(self.name, filename, revision=self.revision)
        commit: str | None = huggingface_hub.get_hf_file_metadata(url, token=self._token()).commit_hash
        return commit

    def located(self) -> Repository:
        """Return the repository at the commit that the hub names; from the cache if the hub is not to be had.

        Raises:
            ModelLoadError: Neither the hub nor the cache has the model's config; the subclass tells why.
        """
        try:
            return replace(self, revision=self._ask(_CONFIG))
        except BaseException as error:  # noqa: BLE001 - as in `read`
            problem = self._explained(error)
            # Those are what the cache helps with, as with huggingface_hub itself; a revision that the hub does not
            # know is none of them.
            is_curable = isinstance(problem, (HubUnreachableError, AccessDeniedError)) or stems_from(
                error, "RepositoryNotFoundError"
            )
        if not is_curable or not self._is_cached(_CONFIG):
            raise problem
        logger.warning("Reading %r from the cache. %s", self.name, problem)
        return replace(self, local_files_only=True, refusal=problem)  # type: ignore[arg-type] # curable ones are ours

    def _explained(self, error: BaseException) -> BaseException:
        """Return the error to raise for one that a loader raised, and cut off what hangs on it."""
        logger.debug("Reading %r failed:\n%s", self.name, self.censored("".join(traceback.format_exception(error))))
        explained = error
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, PetalsError):
            explained = translated(error, self)
        for each in chain(explained):
            each.__traceback__ = None
        return explained

    def censored(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self.key.get_secret_value(), "**********") if self.key else text


def find(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | None = None,
    local_files_only: bool = False,
    trust_remote_code: bool = False,
    key: SecretStr | None = None,
) -> Repository:
    """Return a model's repository, after asking the hub for its commit.

    Args:
        name: Folder or hub name.
        revision: Commit, branch or tag; None for the main branch.
        cache_dir: Folder for downloaded files; None for transformers' own.
        local_files_only: Read the cache and ask nobody.
        trust_remote_code: Let code from the repository run in this process.
        key: The hub's key; None for the one that huggingface_hub has stored, if any.

    Raises:
        ModelLoadError: The model's config could not be had; the subclass tells why.
        InvalidRequestError: `name` is neither a folder nor a possible hub name.
    """
    if Path(name).is_dir():
        return Repository(name, trust_remote_code=trust_remote_code)
    from transformers.utils.hub import TRANSFORMERS_CACHE  # noqa: PLC0415 - heavy

    repository = Repository(
        name,
        revision=revision,
        cache_dir=str(cache_dir or TRANSFORMERS_CACHE),
        local_files_only=local_files_only,
        trust_remote_code=trust_remote_code,
        key=key or stored_key(),
    )
    return repository if local_files_only else repository.located()


def stored_key() -> SecretStr | None:
    """Return the key that `huggingface-cli login` has written down, unless HF_HUB_DISABLE_IMPLICIT_TOKEN forbids."""
    import huggingface_hub  # noqa: PLC0415 - heavy

    if huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    # huggingface_hub 0.17, and what replaced it in 0.20
    get_token = getattr(huggingface_hub, "get_token", None) or huggingface_hub.HfFolder.get_token
    found = get_token()
    return checked_key(SecretStr(found)) if found else None
