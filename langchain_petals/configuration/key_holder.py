"""The hub's key as a field that stays out of everything that is written down."""

from __future__ import annotations

from typing import Any

from langchain_core.load.serializable import Serializable
from pydantic import Field, SecretStr, field_validator

from langchain_petals.hub import KEY_FIELD, checked_key, key_from_environment


class HubKeyHolder(Serializable):
    """A model with the hub's key among its fields.

    The key is in no repr, dump or pickle. Copies have it. What was pickled takes it from the environment again.
    """

    huggingface_api_key: SecretStr | None = Field(default_factory=key_from_environment)
    """Key for gated or private models on the hub.

    `api_key` is another name for it. None stands for the one in HUGGINGFACE_API_KEY, HF_TOKEN or
    HUGGINGFACEHUB_API_TOKEN; without them, the one that `huggingface-cli login` has stored."""

    @field_validator(KEY_FIELD)
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        return key_from_environment() if key is None else checked_key(key)

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Fields that LangChain's serialisation replaces by the names of these variables."""
        return {KEY_FIELD: "HF_TOKEN"}

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        return state | {"__dict__": state["__dict__"] | {KEY_FIELD: None}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__dict__[KEY_FIELD] = key_from_environment()
