"""The fields of the chat model, and its descriptions for LangChain's caches, traces and model profiles."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core.language_models import BaseChatModel, ModelProfile
from pydantic import Field, field_validator

from langchain_petals.calls import short_traceback
from langchain_petals.chat.templates import ChatTemplate
from langchain_petals.configuration.cache_key import OF_ONE_MODEL, identity_of_response_format
from langchain_petals.configuration.options import CONSTRAINT_OPTIONS
from langchain_petals.configuration.parameters import PetalsParameters
from langchain_petals.errors import InvalidRequestError
from langchain_petals.hub import hide_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.language_models import LangSmithParams

    from langchain_petals.engine import Engine

_OF_THE_RESPONSE = ("tools", "tool_choice", "parallel_tool_calls", "strict", "response_format")

_OWN_VARIABLES = frozenset(inspect.signature(ChatTemplate.render).parameters) - {"self", "extra"}


class ChatParameters(PetalsParameters, BaseChatModel):
    """A chat model with the fields that only chat models have; `ChatPetals` adds the calls."""

    model_name: str = Field(default="", alias="model")  # there is no usual chat model, so "" is refused
    """Folder or hub name of the model; by default the one that LANGCHAIN_PETALS_MODEL names."""

    streaming: bool = False
    """Let `invoke` stream too, so that callbacks get each token."""

    chat_template: str | None = None
    """How messages become a prompt: a Jinja template, or the name of a built-in one; None for the model's own."""

    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further variables for the template, such as `enable_thinking`."""

    allow_special_tokens: bool = False
    """Let special tokens inside a message act as such. If False, a message cannot imitate further messages."""

    tool_format: str | None = None
    """How the model writes tool calls: "hermes", "llama-3.1", "llama-3.1-python-tag" or "mistral"; None derives it
    from the template."""

    _of_calls: ClassVar[frozenset[str]] = frozenset({*_OF_THE_RESPONSE, "model", "model_name", "stream"})

    @field_validator("chat_template_kwargs")
    @classmethod
    def _check_template_kwargs(cls, variables: dict[str, Any]) -> dict[str, Any]:
        if taken := variables.keys() & _OWN_VARIABLES:
            msg = f"chat_template_kwargs cannot set {', '.join(sorted(taken))}, which every call sets by itself"
            raise InvalidRequestError(msg)
        return variables

    @property
    def model(self) -> str:
        """The model's folder or hub name."""
        return self.model_name

    @property
    def max_tokens(self) -> int:
        """Maximum number of tokens of an answer."""
        return self.max_new_tokens

    def _identity(self, stop: Sequence[str] | None, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        own = ("chat_template", "chat_template_kwargs", "allow_special_tokens", "tool_format", "output_version")
        return super()._identity(stop, kwargs) | {name: getattr(self, name) for name in own}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop=stop, **{"model": kwargs.pop("model_name", None), **kwargs})

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the options in a call's trace, with the values that the call uses."""
        params = super()._get_invocation_params(stop=stop, **hide_key(kwargs))
        options = self._traced_options(stop, kwargs)
        if options is None:
            return params
        used = options.model_dump(exclude=set(CONSTRAINT_OPTIONS)) | {"stop": list(options.stop) or None}
        used["max_tokens"] = options.max_new_tokens
        return params | {name: used[name] for name in params if name in used}

    @short_traceback
    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Return the cache key of a call, apart from its messages."""
        options = {name: value for name, value in kwargs.items() if name not in self._of_calls}
        identity = self._identity(stop, options) | identity_of_response_format(
            {name: kwargs.get(name) for name in _OF_THE_RESPONSE}
        )
        name = kwargs.get("model") or kwargs.get("model_name")
        if name not in (None, self.model_name):
            identity |= dict.fromkeys(OF_ONE_MODEL) | {"model_name": name, "dht_prefix": self._prefix_for(name)}
        return str(sorted(identity.items()))

    def _resolve_model_profile(self) -> ModelProfile:
        config = Path(self.model_name) / "config.json"
        known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        profile = ModelProfile(
            text_inputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            text_outputs=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )
        if known.get("max_position_embeddings") is not None:
            profile["max_input_tokens"] = known["max_position_embeddings"]
        return profile

    def _get_engine(self) -> Engine:
        """Return the engine of the model, loading it on first use; its context length goes into the profile."""
        engine = super()._get_engine()
        length = engine.client.context_length
        if self.profile is not None and length is not None:
            self.profile["max_input_tokens"] = min(length, self.profile.get("max_input_tokens", length))
        return engine
