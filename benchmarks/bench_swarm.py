"""A swarm for measurements, which reports the attention cache that its servers still hold."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import Comparison, bounded
from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.engine import Engine
    from langchain_petals.engine.network import Routes
    from langchain_petals.swarm import LocalServer

_CLOSING_SECONDS = 5.0  # a session is closed after its last token was delivered


class BenchSwarm:
    """A local swarm and this process's client of it.

    Args:
        swarm: A swarm that has not been used yet.
    """

    def __init__(self, swarm: LocalSwarm) -> None:
        self.swarm = swarm
        self.engine: Engine = self.llm()._get_engine()  # noqa: SLF001 - there is no public way to the engine
        client: Any = self.engine.client  # a `SwarmClient`
        self._routes: Routes = client.routes
        self._untouched = {server.peer_id: self._free(server) for server in swarm.servers}

    def llm(self, **options: Any) -> Petals:
        """Return a greedy `Petals` that keeps no idle sessions by default."""
        return Petals(**self.swarm.connection, **({"temperature": 0, "session_cache": 0} | options))

    def _free(self, server: LocalServer) -> int:
        return self._routes.free_cache_tokens(server.peer_id, server.blocks.start)

    def held_tokens(self) -> dict[LocalServer, int]:
        """Return the tokens of attention cache that each living server reports as reserved."""
        living = [server for server in self.swarm.servers if server.alive]
        # servers count the tokens of a single block
        return {
            server: (self._untouched[server.peer_id] - self._free(server)) // len(server.blocks) for server in living
        }

    def sessions_left(self, after: str) -> Comparison:
        """Return the most tokens that a server holds beyond the idle sessions of the pool.

        Sessions of one client hold the same number of tokens on each server, so the maximum over servers is exact.
        """
        pooled = self.engine.pool.reserved_tokens
        deadline = time.monotonic() + _CLOSING_SECONDS
        while (left := max(self.held_tokens().values()) - pooled) and time.monotonic() < deadline:
            pass
        return bounded(f"attention cache left open after: {after}", left, 0, unit="tokens")


@contextmanager
def bench_swarm(*args: Any, **options: Any) -> Iterator[BenchSwarm]:
    """Start a `LocalSwarm` with these arguments."""
    with LocalSwarm(*args, **options) as swarm:
        yield BenchSwarm(swarm)
