"""The hub's key: where it comes from, what it may look like, and by which names it is recognised."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from langchain_petals.errors import InvalidRequestError

KEY_VARIABLES = ("HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
"""Environment variables that may hold the key; the first that does counts."""

KEYS_PAGE = "https://huggingface.co/settings/tokens"

KEY_FIELD = "huggingface_api_key"
"""The constructor argument that holds it."""
_SHORT_NAME = "api_key"  # what LangChain's models call their key

KEY_FIELDS = frozenset({KEY_FIELD, _SHORT_NAME})
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
            f"{KEY_FIELD} holds white space or characters outside ASCII, which no key of the hub does. Copy it again "
            f"from {KEYS_PAGE}."
        )
        raise InvalidRequestError(msg)
    return SecretStr(value) if value else None


def with_hidden_key(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return constructor arguments with the key under its name, and with what is a key by its name as a `SecretStr`."""
    hidden = hide_key(arguments)
    if _SHORT_NAME in hidden and hidden.get(KEY_FIELD) is None:
        hidden[KEY_FIELD] = hidden.pop(_SHORT_NAME)
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
    keys = sorted(name for name in names if is_key(name) and name != KEY_FIELD)
    if not _OTHER_NAMES.isdisjoint(keys):
        msg = f"{', '.join(keys)} is no argument; give the hub's key as {KEY_FIELD}"
        raise InvalidRequestError(msg)
    if keys:
        msg = (
            f"{', '.join(keys)} is no argument: a swarm needs no key; the hub's, for gated and private models, is "
            f"given as {KEY_FIELD}"
        )
        raise InvalidRequestError(msg)


def is_key(name: Any) -> bool:
    """Whether an argument of this name is the hub's key or another service's."""
    return isinstance(name, str) and (name in {KEY_FIELD, *_OTHER_NAMES} or bool(_OF_ANOTHER_SERVICE.fullmatch(name)))


def _key_in(variable: str) -> SecretStr | None:
    value = os.environ.get(variable, "").strip()
    return SecretStr(value) if value else None
