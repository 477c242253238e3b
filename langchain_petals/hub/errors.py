"""The place of a model's files, and the errors when these cannot be read; no error text holds the key."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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
# what huggingface_hub raises when the hub gives no answer: its own types, and those of requests and httpx
_NO_ANSWER = ("LocalEntryNotFoundError", "OfflineModeIsEnabled", "RequestException", "TransportError")
_SET_KEY = "set HF_TOKEN (or huggingface_api_key) to"


@dataclass(frozen=True)
class Source:
    """The place of one model's files: a folder, or a repository of the hub.

    Attributes:
        name: Folder or hub name.
        revision: Commit, branch or tag; None for the main branch.
        cache_dir: Folder for downloaded files; None for huggingface_hub's own.
        local_files_only: Whether to read the cache and send no request.
        key: The hub's key, for gated and private repositories; None for the one that huggingface_hub has stored.
    """

    name: str
    revision: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    key: SecretStr | None = field(default=None, repr=False)

    @property
    def is_folder(self) -> bool:
        """Whether the files are in a folder; a folder that may not be looked at is none."""
        return os.path.isdir(self.name)  # noqa: PTH112 - Path.is_dir raises for names that no folder can have

    @property
    def is_offline(self) -> bool:
        """Whether only the cache is read: `local_files_only` or HF_HUB_OFFLINE asks for it."""
        from huggingface_hub import constants  # noqa: PLC0415 - heavy

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)

    def censored(self, text: str) -> str:
        """Return a text with the key replaced by asterisks."""
        return text.replace(self.key.get_secret_value(), "**********") if self.key else text


def translated(error: Exception, source: Source, filename: str) -> PetalsError:
    """Return the error to raise for an error of huggingface_hub; it tells the user what to do."""
    case = _Case(error, source)
    if _stems_from(error, "HFValidationError"):
        return InvalidRequestError(
            f"{source.name!r} is neither a folder nor a name of a model on the hub; the form is owner/name"
        )
    said = f"Could not load {filename} of {source.name!r}: {case.said or type(error).__name__}"
    return case.refusal() or case.absence() or ModelLoadError(said)


def _stems_from(error: BaseException, *names: str) -> bool:
    """Return whether an error or one of its causes is an instance of a class with one of these names.

    Classes are compared by name, since huggingface_hub has changed its HTTP library: requests, httpx, httpx2.
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
        self.said = source.censored(str(error)).strip()
        self._page = f"{_endpoint()}/{source.name}"
        self._request = f"Access is requested on the model's page, {self._page}."

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
        if self._response is not None or _stems_from(self._error, *_NO_ANSWER):
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
        return "the one given as huggingface_api_key, or stored by huggingface_hub's login"


def _endpoint() -> str:
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    return str(constants.ENDPOINT)
