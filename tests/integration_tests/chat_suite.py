"""LangChain's standard suite for chat models, with all that ChatPetals can do switched on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests

from langchain_petals import ChatPetals

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_petals.swarm import LocalSwarm


class ChatSuite(ChatModelIntegrationTests):
    """The suite on one swarm, with another model beside it; everything that is not named is on."""

    _swarm: LocalSwarm
    _second: LocalSwarm

    @pytest.fixture
    def model(self, request: Any) -> BaseChatModel:
        """Return the model under test: the suite asks for its own fixture before the swarm's is there."""
        extra = getattr(request, "param", None) or {}
        return self.chat_model_class(**self.standard_chat_model_params | self.chat_model_params | extra)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatPetals

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self._swarm.connection | {"temperature": 0, "max_tokens": 160}

    @property
    def model_override_value(self) -> str:
        return self._second.model

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return False  # Petals serves models of text only; so for audio and PDFs

    @property
    def enable_vcr_tests(self) -> bool:
        return True

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Any]]:
        return {"invoke": ["cache_read_input"], "stream": ["cache_read_input"]}

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """Ask a second question of a conversation, whose first turn the servers have seen."""
        model = ChatPetals(**self.chat_model_params)
        messages: list[Any] = [HumanMessage("Who are you?")]
        messages += [model.invoke(messages), HumanMessage("What is one and two?")]
        if not stream:
            answer = model.invoke(messages)
        else:
            chunks: list[AIMessageChunk] = list(model.stream(messages))
            answer = sum(chunks[1:], chunks[0])
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["input_token_details"]["cache_read"] > 0
        return answer
