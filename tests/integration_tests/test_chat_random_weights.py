"""LangChain's standard suite once more, with a model that understands nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from chat_suite import ChatSuite
from random_weights import all_but_a_few

if TYPE_CHECKING:
    from langchain_petals.swarm import LocalSwarm


class TestRandomWeights(ChatSuite):
    """The suite with a model that understands nothing: what is valid does not depend on the model."""

    needs_understanding = frozenset(
        {
            "test_tool_calling",  # the argument has to be the question's
            "test_tool_calling_async",
            "test_unicode_tool_call_integration",  # so has this one
            "test_agent_loop",  # the model has to call the tool of its own accord
            "test_json_mode",  # nothing but the question says which keys there are
            "test_tool_calling_with_no_arguments",  # one call is enough
        }
    )
    """Tests that are not asked of it; conftest.py deselects them."""

    @pytest.fixture(autouse=True)
    def _on_the_swarm(self, swarm_of_random_weights: LocalSwarm, second_swarm: LocalSwarm) -> None:
        self._swarm, self._second = swarm_of_random_weights, second_swarm

    @property
    def chat_model_params(self) -> dict[str, Any]:
        few = {"model_kwargs": {"bad_words_ids": all_but_a_few(Path(self._swarm.model))}}
        return super().chat_model_params | {"max_tokens": 192, "temperature": 3, "seed": 7} | few

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Any]]:
        return {"invoke": [], "stream": []}  # it says special tokens and broken characters, which no prompt can repeat
