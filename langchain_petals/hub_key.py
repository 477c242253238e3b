"""The hub's key as a field: where it comes from, and how it stays out of everything that is written down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from langchain_core.load.serializable import Serializable
from pydantic import Field, SecretStr, field_validator

from langchain_petals.errors import InvalidRequestError

KEY_VARIABLES = ("HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
"""Environment variables that may hold the key; the first that does counts."""

KEYS_PAGE = "https://huggingface.co/settings/tokens"

_FIELD = "huggingface_api_key"
_SHORT_NAME = "api_key"  # what LangChain's models call their key

KEY_FIELDS = frozenset({_FIELD, _SHORT_NAME})
"""Constructor arguments that hold the key."""

# Names under which other libraries take the key. As unknown arguments they would end up in model_kwargs, in the open.
_OTHER_NAMES = frozenset(
    {"api_key", "auth_token", "hf_token", "huggingface_token", "huggingfacehub_api_token", "token", "use_auth_token"}
)
_OF_ANOTHER_SERVICE = re.compile(r"\w+_(api|access|secret)_(key|token)(_id)?")


def key_from_environment() -> SecretStr | None:
    """Return the key from the first of `KEY_VARIABLES` that holds one."""
    return next((found for found in map(_key_in, KEY_VARIABLES) if found is not None), None)


def checked_key(key: SecretStr) -> SecretStr | None:
    """Return a key without white space around it, None for an empty one.

    Raises:
        InvalidRequestError: It holds characters that no key has. An HTTP library would refuse them, too, with an
            error that shows the key.
    """
    value = key.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in value):
        msg = (
            f"{_FIELD} holds white space or characters outside ASCII, which no key of the hub does. Copy it again from "
            f"{KEYS_PAGE}."
        )
        raise InvalidRequestError(msg)
    return SecretStr(value) if value else None


def with_hidden_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with the key under its name, and with what is a key by its name as a `SecretStr`."""
    hidden = hide_key(arguments)
    if _SHORT_NAME in hidden and hidden.get(_FIELD) is None:
        hidden[_FIELD] = hidden.pop(_SHORT_NAME)
    return hidden


def hide_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with what is a key by its name as a `SecretStr`."""
    hidden = {
        name: SecretStr(value) if isinstance(value, str) and is_key(name) else value
        for name, value in arguments.items()
    }
    if isinstance(more := hidden.get("model_kwargs"), dict):
        hidden["model_kwargs"] = hide_key(more)
    return hidden


def check_names(arguments: dict[str, Any]) -> None:
    """Refuse arguments that look like a key under another name: they would end up in the open.

    Raises:
        InvalidRequestError: There is one; names it and the right name.
    """
    more = arguments.get("model_kwargs")
    names = {*arguments, *(more if isinstance(more, Mapping) else ())}
    keys = sorted(name for name in names if is_key(name) and name != _FIELD)
    if not _OTHER_NAMES.isdisjoint(keys):
        msg = f"{', '.join(keys)} is no argument; give the hub's key as {_FIELD}"
        raise InvalidRequestError(msg)
    if keys:
        msg = (
            f"{', '.join(keys)} is no argument: a swarm needs no key; the hub's, for gated and private models, is "
            f"given as {_FIELD}"
        )
        raise InvalidRequestError(msg)


def is_key(name: Any) -> bool:
    """Whether an argument of this name is the hub's key or another service's."""
    return isinstance(name, str) and (name in {_FIELD, *_OTHER_NAMES} or bool(_OF_ANOTHER_SERVICE.fullmatch(name)))


class HubKeyHolder(Serializable):
    """A model with the hub's key among its fields.

    The key is in no repr, dump or pickle. Copies have it. What was pickled takes it from the environment again.
    """

    huggingface_api_key: SecretStr | None = Field(default_factory=key_from_environment)
    """Key for gated or private models on the hub.

    `api_key` is another name for it. None stands for the one in HUGGINGFACE_API_KEY, HF_TOKEN or
    HUGGINGFACEHUB_API_TOKEN; without them, the one that `huggingface-cli login` has stored."""

    @field_validator(_FIELD)
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        return key_from_environment() if key is None else checked_key(key)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields that LangChain's serialisation replaces by the names of these variables."""
        return {_FIELD: "HF_TOKEN"}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {_FIELD: None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__[_FIELD] = key_from_environment()


def _key_in(variable: str) -> SecretStr | None:
    value = os.environ.get(variable, "").strip()
    return SecretStr(value) if value else None
