"""Reads a model's files from a folder, the cache or the hub.

The first file, the config, gives the commit, and all other files are read at that commit. So config, tokenizer and
weights belong together, and cached files need no further request. As in huggingface_hub, the cache is used when the hub
does not answer, or refuses access.

The key is a `SecretStr` until it is passed to a call. All errors leave this module without their frames, since local
variables of huggingface_hub hold the key, and error reporting tools show them.
"""

from __future__ import annotations

import logging
import os
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr

from langchain_petals.errors import ModelLoadError
from langchain_petals.hub.bars import download_bars
from langchain_petals.hub.errors import Source, chain, translated
from langchain_petals.hub.key import KEY_VARIABLES, checked_key

if TYPE_CHECKING:
    from langchain_petals.hub.files import Files

logger = logging.getLogger(__name__)

_CONFIG = "config.json"
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Repository(Source):
    """The files of one model; see `Source` for its attributes.

    Example:
        >>> from importlib.resources import files
        >>> from langchain_petals.hub import Repository, read_json
        >>> bundled = Repository(str(files("langchain_petals") / "swarm" / "tiny")).located()
        >>> read_json(bundled, "config.json")["model_type"]
        'llama'
    """

    def located(self) -> Repository:
        """Return this repository at the hub's commit, or at the cache's commit if the hub does not answer.

        Raises:
            ModelLoadError: The model's config could not be read; the subclass tells why.
            InvalidRequestError: `name` is neither a folder nor a possible hub name.
        """
        if self.is_folder:
            return Repository(self.name)
        from huggingface_hub import constants  # noqa: PLC0415 - heavy

        cache_dir = str(self.cache_dir or constants.HF_HUB_CACHE)
        complete = replace(self, cache_dir=cache_dir, key=self.key or _stored_key())
        config = complete._downloaded(_CONFIG)  # noqa: SLF001 - an object of this class
        if config is None:
            raise missing(complete, _CONFIG)
        return replace(complete, revision=config.parent.name)

    def file(self, filename: str) -> Path | None:
        """Return the path of a file, downloaded if need be; None if the model has no such file.

        A file that the cache does not hold counts as one that the model does not have, where downloads are forbidden.

        Raises:
            ModelLoadError: The file could not be had; the subclass tells why.
        """
        if self.is_folder:
            path = Path(self.name) / filename
            return path if os.path.isfile(path) else None  # noqa: PTH113 - Path.is_file raises for names too long
        from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - heavy

        known = try_to_load_from_cache(self.name, filename, cache_dir=self.cache_dir, revision=self.revision)
        if known is not None:
            return Path(known) if isinstance(known, str) else None  # else the hub has said that there is none
        return None if self.is_offline else self._downloaded(filename)

    def _downloaded(self, filename: str) -> Path | None:
        """Return the path of a file in the cache, downloaded if it is not there; None if there is no such file."""
        from huggingface_hub import hf_hub_download  # noqa: PLC0415 - heavy
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError  # noqa: PLC0415 - as above

        try:
            with download_bars():
                path = hf_hub_download(
                    self.name,
                    filename,
                    revision=self.revision,
                    cache_dir=self.cache_dir,
                    local_files_only=self.local_files_only,
                    # False keeps huggingface_hub from searching for a key by itself
                    token=self.key.get_secret_value() if self.key else False,
                )
            return Path(path)
        except LocalEntryNotFoundError as error:  # it may exist: the hub could not be asked
            problem = self._explained(error, filename)
        except EntryNotFoundError:
            return None
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames of the call
            problem = self._explained(error, filename)
        raise problem

    def _explained(self, error: BaseException, filename: str) -> BaseException:
        """Return the error to raise for an error of huggingface_hub, without frames."""
        details = self.censored("".join(traceback.format_exception(error)))
        logger.debug("Reading %s of %r failed:\n%s", filename, self.name, details)
        explained = translated(error, self, filename) if isinstance(error, Exception) else error
        for each in chain(explained):
            each.__traceback__ = None
        return explained


def missing(files: Files, what: str) -> ModelLoadError:
    """Return the error to raise for a file that a model must have, and that `files` do not hold."""
    if isinstance(files, Repository) and not files.is_folder and files.is_offline:
        why = "local_files_only=True" if files.local_files_only else "HF_HUB_OFFLINE"
        return ModelLoadError(
            f"The files of {files.name!r} are not all in the cache {files.cache_dir}, and {why} forbids downloads: "
            f"there is no {what}."
        )
    return ModelLoadError(f"{files.name!r} has no {what}. Check that its files are complete.")


def key_origin() -> str | None:
    """Return where the hub's key comes from, in words; None if there is none.

    Raises:
        InvalidRequestError: It holds characters that no key has.
    """
    for variable in KEY_VARIABLES:
        if (value := os.environ.get(variable, "").strip()) and checked_key(SecretStr(value)):
            return variable
    return "the login of huggingface_hub" if _stored_key() else None


def _stored_key() -> SecretStr | None:
    """Return the key that the login of huggingface_hub has stored, unless HF_HUB_DISABLE_IMPLICIT_TOKEN is set."""
    from huggingface_hub import constants, get_token  # noqa: PLC0415 - heavy

    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    found = get_token()
    return checked_key(SecretStr(found)) if found else None
