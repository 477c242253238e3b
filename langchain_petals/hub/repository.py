"""Reads a model's files from a folder, the cache or the hub.

The first file, the config, gives the commit, and all other files are read at that commit. So config, tokenizer and
weights belong together, and cached files need no further request. As in huggingface_hub, the cache is used when the hub
does not answer, or refuses access.

The key is a `SecretStr` until it is passed to a call. All errors leave this module without their frames, since local
variables of transformers and huggingface_hub hold the key, and error reporting tools show them.
"""

from __future__ import annotations

import importlib.metadata
import logging
import traceback
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version
from pydantic import SecretStr

from langchain_petals.errors import PetalsError
from langchain_petals.hub.errors import Source, chain, translated, unexplained
from langchain_petals.hub.key import checked_key

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_RESUMES = Version("0.23")  # the first huggingface_hub that resumes downloads by itself
_CONFIG = "config.json"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Repository(Source):
    """Reads the files of one model with transformers' loaders; see `Source` for its attributes."""

    def located(self) -> Repository:
        """Return this repository at the hub's commit, or at the cache's commit if the hub does not answer.

        Raises:
            ModelLoadError: The model's config could not be read; the subclass tells why.
            InvalidRequestError: `name` is neither a folder nor a possible hub name.
        """
        if Path(self.name).is_dir():
            return Repository(self.name, trust_remote_code=self.trust_remote_code)
        from huggingface_hub import constants  # noqa: PLC0415 - heavy

        cache_dir = str(self.cache_dir or constants.HF_HUB_CACHE)
        complete = replace(self, cache_dir=cache_dir, key=self.key or _stored_key())
        config = complete._guarded(lambda: complete._download(_CONFIG))  # noqa: SLF001 - an object of this class
        return replace(complete, revision=Path(config).parent.name)

    def read(self, load: Callable[..., Any], **options: Any) -> Any:
        """Call one of transformers' loaders, a `from_pretrained`, for this repository and with further `options`.

        Raises:
            ModelLoadError: The files could not be read; the subclass tells why.
            InvalidRequestError: The files do not fit the arguments.
        """
        options |= {"trust_remote_code": self.trust_remote_code}
        return self._guarded(lambda: load(self.name, **self._arguments(), **options))

    def weights_format(self) -> dict[str, bool]:
        """Return the argument that makes transformers read safetensors, or pickles if the model has no safetensors.

        A pickle can hold code. PyTorch does not run it any more, but a file that cannot hold code is safer.
        """
        if any(map(self._has, SAFETENSORS)):
            return {"use_safetensors": True}
        if any(map(self._has, PICKLES)):
            warnings.warn(
                f"{self.name!r} has its weights in pickles only, which can hold harmful code. Use it if you trust its "
                "authors; better, ask them for safetensors.",
                stacklevel=2,
            )
            return {"use_safetensors": False}
        return {}  # transformers reports what is missing

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments that transformers' loaders and huggingface_hub's download have in common."""
        arguments: dict[str, Any] = {"revision": self.revision, "cache_dir": self.cache_dir, "token": self._token()}
        arguments["local_files_only"] = self.local_files_only
        if Version(importlib.metadata.version("huggingface-hub")) < _RESUMES:
            arguments["resume_download"] = True
        return arguments

    def file(self, filename: str) -> Path | None:
        """Return the path of a file, downloaded if need be; None if the model has no such file.

        Raises:
            ModelLoadError: The file could not be had; the subclass tells why.
        """
        if Path(self.name).is_dir():
            path = Path(self.name) / filename
            return path if path.is_file() else None
        return Path(self._guarded(lambda: self._download(filename))) if self._has(filename) else None

    def _token(self) -> str | bool:
        """Return the key for huggingface_hub; False keeps it from searching for one by itself."""
        return self.key.get_secret_value() if self.key else False

    def _has(self, filename: str) -> bool:
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - heavy

        if Path(self.name).is_dir():
            return (Path(self.name) / filename).is_file()
        known = try_to_load_from_cache(self.name, filename, cache_dir=self.cache_dir, revision=self.revision)
        return isinstance(known, str) if known is not None else self._guarded(lambda: self._can_download(filename))

    def _can_download(self, filename: str) -> bool:
        from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415 - heavy

        try:
            self._download(filename)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and not self.local_files_only:
                raise  # the hub could not be reached
            return False
        return True

    def _download(self, filename: str) -> str:
        """Return the path of a file in the cache; download it if it is not there."""
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - heavy

        path: str = hf_hub_download(self.name, filename, **self._arguments())
        return path

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames of the call
            problem = self._explained(error)
        raise problem

    def _explained(self, error: BaseException) -> BaseException:
        """Return the error to raise for a loader's error, without frames."""
        logger.debug("Reading %r failed:\n%s", self.name, self.censored("".join(traceback.format_exception(error))))
        explained = error
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, PetalsError):
            explained = translated(error, self) or self._error_of_hub() or unexplained(error, self)
        for each in chain(explained):
            each.__traceback__ = None
        return explained

    def _error_of_hub(self) -> PetalsError | None:
        """Ask the hub for its own error, since transformers hides why it found no file of a tokenizer."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url  # noqa: PLC0415 - heavy

        try:
            get_hf_file_metadata(hf_hub_url(self.name, _CONFIG, revision=self.revision), token=self._token())
        except OSError as error:
            return translated(error, self)
        return None


def _stored_key() -> SecretStr | None:
    """Return the key that `huggingface-cli login` has stored, unless HF_HUB_DISABLE_IMPLICIT_TOKEN is set."""
    import huggingface_hub  # noqa: PLC0415 - heavy

    if huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    # get_token exists since huggingface_hub 0.20, HfFolder before
    get_token = getattr(huggingface_hub, "get_token", None) or huggingface_hub.HfFolder.get_token
    found = get_token()
    return checked_key(SecretStr(found)) if found else None
