"""The place of a model's files, and the errors when these cannot be read; no error text holds the key."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_petals.errors import (
    AccessDeniedError,
    HubUnreachableError,
    InvalidKeyError,
    InvalidRequestError,
    ModelLoadError,
    ModelNotFoundError,
    PetalsError,
)
from langchain_petals.hub.key import KEY_VARIABLES, KEYS_PAGE

if TYPE_CHECKING:
    from pydantic import SecretStr

_UNAUTHORIZED, _SERVER_ERROR = 401, 500  # HTTP status codes
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])\s+")
_SET_KEY = "set HF_TOKEN (or huggingface_api_key) to"


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


def translated(error: Exception, source: Source) -> PetalsError | None:
    """Return an error that tells the user what to do; None if it is unknown whether the hub caused the original."""
    case = _Case(error, source)
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return case.misfit()
    if Path(source.name).is_dir():
        return ModelLoadError(f"Could not load the model from the folder {source.name!r}: {case.said}")
    return case.refusal() or case.absence()


def unexplained(error: Exception, source: Source) -> PetalsError:
    """Return the error to raise for an error that the hub did not cause."""
    return ModelLoadError(f"Could not load {source.name!r}: {_without_advice(source.censored(str(error)))}")


def _stems_from(error: BaseException, *names: str) -> bool:
    """Return whether an error or one of its causes is an instance of a class with one of these names.

    Classes are compared by name, since huggingface_hub has moved them between modules.
    """
    return any(each.__name__ in names for link in chain(error) for each in type(link).__mro__)


def chain(error: BaseException) -> list[BaseException]:
    """Return an error with all its direct and indirect causes and contexts."""
    found = [error]
    for link in found:  # the list grows in the loop
        found += [each for each in (link.__cause__, link.__context__) if each is not None and each not in found]
    return list(dict.fromkeys(found))


class _Case:
    """A failure to read a source; returns the error for each kind of reason."""

    def __init__(self, error: Exception, source: Source) -> None:
        self._error, self._source, self._name = error, source, source.name
        responses = [getattr(each, "response", None) for each in chain(error)]
        self._response: Any = next((response for response in responses if response is not None), None)
        self.said = _without_advice(source.censored(str(error)))
        self._page = f"{_endpoint()}/{source.name}"
        self._request = f"Access is requested on the model's page, {self._page}."

    def misfit(self) -> PetalsError:
        """Return the error for files or a name that do not fit the arguments."""
        name = self._name
        if _stems_from(self._error, "HFValidationError"):
            return InvalidRequestError(
                f"{name!r} is neither a folder nor a name of a model on the hub; the form is owner/name"
            )
        if "trust_remote_code" in self.said:
            return InvalidRequestError(
                f"{name!r} has its own code, which would run in this process. Read it, and set "
                "trust_remote_code=True if you trust it."
            )
        return InvalidRequestError(f"Could not load {name!r}: {self.said}")

    def refusal(self) -> PetalsError | None:
        """Return the error for the hub's answer; None if the hub gave no answer, or had a failure."""
        name, key = self._name, self._source.key
        if _stems_from(self._error, "GatedRepoError"):
            return self._without_access()
        if self._response is not None and self._response.status_code == _UNAUTHORIZED and key is not None:
            return InvalidKeyError(
                f"The hub does not know the key that was sent for {name!r}, {self._origin()}. Check it, or {_SET_KEY} "
                f"one from {KEYS_PAGE}. {self._request}"
            )
        if _stems_from(self._error, "RepositoryNotFoundError"):
            return ModelNotFoundError(
                f"There is no folder {name!r}, and the hub has no such model, or hides it. Check its name. If it is "
                f"private, {_SET_KEY} a key that may read it, from {KEYS_PAGE}."
            )
        if _stems_from(self._error, "RevisionNotFoundError"):
            return ModelNotFoundError(
                f"{name!r} has no revision {self._source.revision!r}. {self._page}/tree/main lists its branches "
                "and tags."
            )
        if self._response is not None and self._response.status_code < _SERVER_ERROR:
            return ModelLoadError(f"Could not load {name!r} from the hub: {self.said}")
        return None

    def absence(self) -> PetalsError | None:
        """Return the error for files that were read neither from the cache nor from the hub; None for other reasons."""
        name, cache = self._name, self._source.cache_dir
        if self._source.local_files_only:
            return ModelLoadError(
                f"The files of {name!r} are not all in the cache {cache}, and local_files_only=True forbids "
                f"downloads: {self.said}"
            )
        if self._response is not None or _stems_from(self._error, "RequestException", "OfflineModeIsEnabled"):
            last = self._source.censored(str(chain(self._error)[-1]))
            return HubUnreachableError(
                f"The hub ({_endpoint()}) could not be reached, or does not work: {last}. Check the connection, "
                f"HF_ENDPOINT and HF_HUB_OFFLINE. Without the hub, all files of {name!r} must be in the cache {cache}."
            )
        return None

    def _without_access(self) -> AccessDeniedError:
        if self._source.key is None:
            return AccessDeniedError(
                f"{self._name!r} is gated, and no key was given. {self._request} Then {_SET_KEY} a key of your "
                f"account, from {KEYS_PAGE}."
            )
        said = "" if self._response is None else self._response.headers.get("X-Error-Message", "")
        return AccessDeniedError(
            f"{self._name!r} is gated, and the key that was sent, {self._origin()}, has no access to it. "
            f"{self._request} Or {_SET_KEY} a key that has access."
            + (f" The hub said: {self._source.censored(said)}" if said else "")
        )

    def _origin(self) -> str:
        """Return where the key came from, for a text after "the key that was sent"."""
        key = self._source.key
        for name in KEY_VARIABLES:
            if key is not None and os.environ.get(name, "").strip() == key.get_secret_value():
                return f"the one in {name}"
        return "the one given as huggingface_api_key, or stored by huggingface-cli login"


def _without_advice(text: str) -> str:
    """Drop the sentences of transformers with addresses on the hub, since it writes them even for a folder."""
    sentences = _SENTENCE_ENDS.split(text.strip())
    return " ".join(each for each in sentences if "https://huggingface.co/" not in each) or text.strip()


def _endpoint() -> str:
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    return str(constants.ENDPOINT)
