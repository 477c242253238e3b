"""The hub's key: its sources, its checks, and the names of arguments that hold it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from langchain_petals.errors import InvalidRequestError

KEY_VARIABLES = ("HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
"""Environment variables that may hold the key; the first one that is set counts."""

KEYS_PAGE = "https://huggingface.co/settings/tokens"

KEY_FIELD = "huggingface_api_key"
"""The constructor argument that holds it."""
_SHORT_NAME = "api_key"  # what LangChain's models call their key

KEY_FIELDS = frozenset({KEY_FIELD, _SHORT_NAME})
"""Constructor arguments that hold the key."""

# Names of the key in other libraries. As unknown arguments, they would be stored in model_kwargs as plain text.
_OTHER_NAMES = frozenset(
    {"api_key", "auth_token", "hf_token", "huggingface_token", "huggingfacehub_api_token", "token", "use_auth_token"}
)
_OF_ANOTHER_SERVICE = re.compile(r"\w+_(api|access|secret)_(key|token)(_id)?")


def key_from_environment() -> SecretStr | None:
    """Return the key from the first of `KEY_VARIABLES` that holds one."""
    values = (os.environ.get(variable, "").strip() for variable in KEY_VARIABLES)
    return next((SecretStr(value) for value in values if value), None)


def checked_key(key: SecretStr) -> SecretStr | None:
    """Return a key without surrounding white space, or None for an empty one.

    Raises:
        InvalidRequestError: It holds characters that no key has. The HTTP library's error about them would show the
            key.
    """
    value = key.get_secret_value().strip()
    if not all("!" <= character <= "~" for character in value):
        msg = (
            f"{KEY_FIELD} holds white space or characters outside ASCII, which no key of the hub does. Copy it again "
            f"from {KEYS_PAGE}."
        )
        raise InvalidRequestError(msg)
    return SecretStr(value) if value else None


def with_hidden_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with all keys as `SecretStr`, and the hub's key under its full name."""
    hidden = hide_key(arguments)
    if _SHORT_NAME in hidden and hidden.get(KEY_FIELD) is None:
        hidden[KEY_FIELD] = hidden.pop(_SHORT_NAME)
    return hidden


def hide_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return arguments; values whose names are names of keys become `SecretStr`."""
    hidden = {
        name: SecretStr(value) if isinstance(value, str) and is_key(name) else value
        for name, value in arguments.items()
    }
    if isinstance(more := hidden.get("model_kwargs"), dict):
        hidden["model_kwargs"] = hide_key(more)
    return hidden


def check_names(arguments: dict[str, Any]) -> None:
    """Refuse keys under other names, which would be stored as plain text.

    Raises:
        InvalidRequestError: There is such a key; the message has its name and the right name.
    """
    more = arguments.get("model_kwargs")
    names = {*arguments, *(more if isinstance(more, Mapping) else ())}
    keys = sorted(name for name in names if is_key(name) and name != KEY_FIELD)
    if keys:
        hint = f": a swarm needs no key; the hub's, for gated and private models, is given as {KEY_FIELD}"
        if not _OTHER_NAMES.isdisjoint(keys):
            hint = f"; give the hub's key as {KEY_FIELD}"
        msg = f"{', '.join(keys)} is no argument{hint}"
        raise InvalidRequestError(msg)


def is_key(name: Any) -> bool:
    """Return whether an argument of this name is a key, the hub's or another service's."""
    return isinstance(name, str) and (name in {KEY_FIELD, *_OTHER_NAMES} or bool(_OF_ANOTHER_SERVICE.fullmatch(name)))
