"""What the servers themselves say about their attention caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_petals.engine.routes import Routes

if TYPE_CHECKING:
    from langchain_petals import Petals
    from langchain_petals.swarm import LocalSwarm


def free_tokens(llm: Petals, swarm: LocalSwarm) -> list[int]:
    """Return for how many tokens each living server of a swarm has free attention cache."""
    routes = Routes(llm._get_client().model)
    return [routes.free_cache_tokens(server.peer_id, server.blocks.start) for server in swarm.servers if server.alive]
