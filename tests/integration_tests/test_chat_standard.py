"""LangChain's standard suite for chat models, on a real swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chat_suite import ChatSuite

if TYPE_CHECKING:
    from langchain_petals.swarm import LocalSwarm


class TestChatPetals(ChatSuite):
    """The suite with the bundled model."""

    @pytest.fixture(autouse=True)
    def _on_the_swarm(self, swarm: LocalSwarm, second_swarm: LocalSwarm) -> None:
        self._swarm, self._second = swarm, second_swarm
