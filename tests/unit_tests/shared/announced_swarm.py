"""A swarm of announcements only: what servers say in the DHT, and how fast they answer a ping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripted_swarm import ScriptedNetwork, ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Sequence


class AnnouncedSwarm(ScriptedNetwork):
    """Replaces a `Network`, and the function that joins one.

    Args:
        servers: The servers; those without a round trip answer within 10 ms.
        models: What is announced under `_petals.models`, by prefix.

    Attributes:
        joined: Initial peers of each join.
        users: How many have joined and not left.
    """

    def __init__(self, *servers: ScriptedServer, models: dict[Any, Any] | None = None) -> None:
        super().__init__(*servers)
        self.models = models or {}
        self.round_trips = dict.fromkeys(self.servers, 0.01)
        self.joined: list[list[str]] = []
        self.users = 0

    async def records(self, keys: Sequence[str]) -> list[tuple[int, Any, Any, float]]:
        if list(keys) == ["_petals.models"]:
            return [(0, prefix, value, 1.0) for prefix, value in self.models.items()]
        return await super().records(keys)

    def join(self, initial_peers: Sequence[str]) -> tuple[AnnouncedSwarm, Any]:
        """Stand in for `join_swarm`."""
        self.joined.append(list(initial_peers))
        self.users += 1
        return self, self._leave

    def _leave(self) -> None:
        self.users -= 1
