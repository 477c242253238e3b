"""Attention caches as the servers report them.

A session that its client has closed or lost occupies cache until its servers have noticed. So a test that measures the
caches of a shared swarm begins with `free_caches`, and waits until closed sessions have freed their caches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_petals.engine.loading import SwarmClient
from langchain_petals.engine.sessions import session_pool
from langchain_petals.swarm import local

if TYPE_CHECKING:
    from langchain_petals import Petals
    from langchain_petals.engine.network import Routes
    from langchain_petals.swarm import LocalSwarm


def routes_of(llm: Petals) -> Routes:
    """Return the routes of a model, which all calls share."""
    client = llm._get_engine().client
    assert isinstance(client, SwarmClient)
    return client.routes


def tokens_in_use(llm: Petals, swarm: LocalSwarm) -> list[int]:
    """Return how many tokens of attention cache are in use on each living server, over all its blocks."""
    routes = routes_of(llm)
    of_a_block = swarm._longest_session * local._FULL_SESSIONS
    return [
        of_a_block * len(server.blocks) - routes.free_cache_tokens(server.peer_id, server.blocks.start)
        for server in swarm.servers
        if server.alive
    ]


def wait_until_free(llm: Petals, swarm: LocalSwarm) -> None:
    """Wait until no cache is in use; the suite's time limit ends an endless wait."""
    while any(tokens_in_use(llm, swarm)):
        pass


def free_caches(llm: Petals, swarm: LocalSwarm) -> None:
    """Close all idle sessions of this process, and wait until all cache of a swarm is free."""
    for pool in list(session_pool._pools):
        pool.clear()
    wait_until_free(llm, swarm)
