"""The hub's key as a field that is never written down."""

from __future__ import annotations

from typing import Any

from langchain_core.load.serializable import Serializable
from pydantic import Field, SecretStr, field_validator

from langchain_petals.hub import KEY_FIELD, checked_key, key_from_environment


class HubKeyHolder(Serializable):
    """A pydantic model with the hub's key as a field.

    No repr, dump or pickle shows the key. Copies keep it, and an unpickled object takes it from the environment.
    """

    huggingface_api_key: SecretStr | None = Field(default_factory=key_from_environment)
    """Key for gated or private models on the hub.

    `api_key` is another name for it. None takes the key from HUGGINGFACE_API_KEY, HF_TOKEN or HUGGINGFACEHUB_API_TOKEN,
    or else the one that `huggingface-cli login` has stored."""

    @field_validator(KEY_FIELD)
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        return key_from_environment() if key is None else checked_key(key)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields for which LangChain's serialization writes the name of an environment variable."""
        return {KEY_FIELD: "HF_TOKEN"}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {KEY_FIELD: None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__[KEY_FIELD] = key_from_environment()
