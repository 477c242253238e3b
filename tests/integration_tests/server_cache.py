"""What the servers themselves say about their attention caches.

A session that its client has closed, or has lost, takes up cache until its servers have noticed. So who looks at the
caches of a swarm that is shared begins with `free_caches`, and what a session gives back is waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_petals.engine.network.routes import Routes
from langchain_petals.engine.sessions import session_pool
from langchain_petals.swarm import local

if TYPE_CHECKING:
    from langchain_petals import Petals
    from langchain_petals.swarm import LocalSwarm


def tokens_in_use(llm: Petals, swarm: LocalSwarm) -> list[int]:
    """Return how many tokens of attention cache sessions take up on each living server, over all its blocks."""
    routes = Routes(llm._get_engine().client.model)
    of_a_block = swarm._longest_session * local._FULL_SESSIONS
    return [
        of_a_block * len(server.blocks) - routes.free_cache_tokens(server.peer_id, server.blocks.start)
        for server in swarm.servers
        if server.alive
    ]


def wait_until_free(llm: Petals, swarm: LocalSwarm) -> None:
    """Wait until no session takes up cache; the suite's own time limit ends a wait in vain."""
    while any(tokens_in_use(llm, swarm)):
        pass


def free_caches(llm: Petals, swarm: LocalSwarm) -> None:
    """Close the idle sessions of all clients of this process, and wait until all cache of a swarm is free."""
    for pool in list(session_pool._pools):
        pool.clear()
    wait_until_free(llm, swarm)
