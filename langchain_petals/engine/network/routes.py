"""Which servers hold which blocks of a model, and which of them to use."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import random
import threading
import time
from typing import TYPE_CHECKING

from langchain_petals.engine.network.announcements import online_servers
from langchain_petals.engine.network.hivemind_parts import ExpertInfo, ExpertUID, MSGPackSerializer
from langchain_petals.engine.network.route_table import NO_ROOM, RouteTable
from langchain_petals.engine.network.span_stream import HANDLER
from langchain_petals.errors import SwarmError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_petals.engine.network.network import Network
    from langchain_petals.engine.network.server import Server, Span

logger = logging.getLogger(__name__)

_FRESH_SECONDS = 60.0  # servers announce themselves every minute
_BAN_SECONDS, _LONGEST_BAN = 15.0, 3600.0
_BANNED, _TOO_SMALL = (
    1e6,
    1e4,
)  # seconds: as few banned servers as possible, then as few as possible of too little cache
_MOST_PINGED = 30  # servers at either end of the model, at each refresh
_SMOOTHING = 0.2  # weight of the newest round trip in the average


class CacheLimitError(SwarmError):
    """The servers' attention caches hold fewer tokens than a session needs.

    Attributes:
        limit: Most tokens that they hold for one session.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the servers hold at most {limit} tokens for one session")


class Routes:
    """The servers of one model on one swarm.

    The DHT is asked again once a minute in the background, and at once where a server has failed or blocks are
    missing. Round trips are measured in the background.

    Args:
        network: The swarm.
        prefix: The name under which the blocks are announced.
        blocks: Number of blocks of the model.
        allowed: Peer ids of the only servers to use; empty for any.
        blocked: Peer ids of servers not to use.
        adapter: Name of the LoRA adapter that the servers must have; None for none.
    """

    def __init__(
        self,
        network: Network,
        prefix: str,
        blocks: int,
        *,
        allowed: Iterable[str] = (),
        blocked: Iterable[str] = (),
        adapter: str | None = None,
    ) -> None:
        self.network, self.prefix, self.adapter = network, prefix, adapter
        self.uids = [f"{prefix}.{block}" for block in range(blocks)]
        self._allowed, self._blocked = frozenset(allowed), frozenset(blocked)
        self._lock = threading.Lock()
        self._table = RouteTable((), blocks, prefix)
        self._read_at = -math.inf
        self._is_refreshing = False
        self._round_trips: dict[str, float] = {}
        self._banned: dict[str, tuple[float, int]] = {}  # until when, and how many times in a row
        self._full: set[str] = set()
        self._limits: dict[str, int] = {}  # tokens of one session that a server has room for

    def refresh(self, timeout: float) -> None:
        """Ask the DHT again which servers there are.

        Args:
            timeout: Seconds to wait for its answer.

        Raises:
            SwarmUnreachableError: There was none.
        """
        try:
            self.network.wait_for(asyncio.wait_for(self._refresh(), timeout), timeout + 1)
        except (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError):
            msg = (
                f"The swarm's DHT gave no routes within {timeout:g} s. Check that the initial peers are still running "
                "and reachable."
            )
            raise SwarmUnreachableError(msg) from None

    async def _refresh(self) -> None:
        records = await self.network.records(self.uids)
        # off the event loop: in a large swarm, this takes longer than a step
        table = await asyncio.get_running_loop().run_in_executor(None, self._arranged, records)
        with self._lock:
            self._table, self._read_at = table, time.monotonic()
            self._full.clear()
        self.network.start(self._ping(table))

    def _arranged(self, records: list[tuple[int, object, object, float]]) -> RouteTable:
        servers = [server for server in online_servers(records, len(self.uids)) if self._may_use(server)]
        return RouteTable(servers, len(self.uids), self.prefix)

    def _may_use(self, server: Server) -> bool:
        if server.peer_id in self._blocked or (self._allowed and server.peer_id not in self._allowed):
            return False
        return self.adapter is None or self.adapter in server.adapters

    async def _refresh_in_background(self) -> None:
        try:
            await self._refresh()
        except Exception as error:  # noqa: BLE001 - the routes there are will do; the next call tries again
            logger.debug("The routes could not be read again: %r", error)
        finally:
            self._is_refreshing = False

    async def _ping(self, table: RouteTable) -> None:
        """Measure the way to servers where a chain may begin or end."""
        last = len(self.uids)
        ends = [server.peer_id for server in table.servers if server.start == 0 or server.end >= last]
        if len(ends) > _MOST_PINGED:
            ends = random.sample(ends, _MOST_PINGED)
        found = await asyncio.gather(*map(self.network.round_trip, ends))
        with self._lock:
            for peer_id, seconds in zip(ends, found, strict=True):
                before = self._round_trips.get(peer_id, math.inf)
                known = math.isfinite(before) and math.isfinite(seconds)
                self._round_trips[peer_id] = _SMOOTHING * seconds + (1 - _SMOOTHING) * before if known else seconds

    def choose(self, max_length: int, needed: int, timeout: float) -> tuple[list[Span], int]:
        """Return the fastest chain of servers over all blocks.

        Args:
            max_length: Tokens of attention cache that each server should have free.
            needed: Tokens that will do.
            timeout: Seconds to wait for the DHT where there is nothing to choose from.

        Returns:
            The chain, and how many tokens to reserve: `max_length`, or less where a server is known to have less.

        Raises:
            BlocksMissingError: Some blocks have no server.
            CacheLimitError: No chain has room for the tokens that are needed.
            SwarmUnreachableError: The DHT gave no answer.
        """
        if self._table.missing:
            self.refresh(timeout)
        elif time.monotonic() - self._read_at > _FRESH_SECONDS and not self._is_refreshing:
            self._is_refreshing = True
            self.network.start(self._refresh_in_background())
        with self._lock:
            now = time.monotonic()
            penalties = dict.fromkeys(self._full, NO_ROOM)
            for peer_id, limit in self._limits.items():
                if limit < needed:
                    penalties[peer_id] = _TOO_SMALL
            for peer_id, (until, _) in self._banned.items():
                if until > now:
                    penalties[peer_id] = _BANNED
            table, round_trips, limits = self._table, dict(self._round_trips), dict(self._limits)
        chain = table.choose(max_length, round_trips, penalties)
        logger.debug("Route: %s", " => ".join(f"{s.start}:{s.end} via {s.server.peer_id}" for s in chain))
        room = min(limits.get(span.server.peer_id, max_length) for span in chain)
        if room < needed:
            raise CacheLimitError(room)
        return chain, min(room, max_length)

    def has_way_around(self, span: Span) -> bool:
        """Whether other servers hold the blocks of a span."""
        return self._table.is_covered_without(span)

    def ban(self, peer_id: str) -> bool:
        """Avoid a server for a while: 15 s, and twice as long each time that it fails again.

        Returns:
            Whether it was not avoided already.
        """
        with self._lock:
            until, failures = self._banned.get(peer_id, (-math.inf, 0))
            if time.monotonic() < until:
                return False
            seconds = min(_BAN_SECONDS * 2**failures, _LONGEST_BAN)
            self._banned[peer_id] = time.monotonic() + seconds, failures + 1
            return True

    def report_success(self, peer_id: str) -> None:
        """End a server's series of failures."""
        if peer_id in self._banned:
            with self._lock:
                self._banned.pop(peer_id, None)

    def note_full(self, peer_id: str) -> None:
        """Prefer other servers to one whose attention cache is full, until the routes are read again."""
        with self._lock:
            self._full.add(peer_id)

    def note_limit(self, peer_id: str, limit: int) -> None:
        """Remember how many tokens of one session a server has room for."""
        with self._lock:
            self._limits[peer_id] = limit

    def free_cache_tokens(self, peer_id: str, block: int, timeout: float = 10) -> int:
        """Ask a server how much attention cache it has free; the DHT's answer may be two minutes old.

        Args:
            peer_id: The server, in base 58.
            block: One of its blocks.
            timeout: Seconds to wait for the answer.

        Returns:
            Tokens of a single block: a session of n tokens on three blocks takes 3 * n.
        """
        question = ExpertUID(uid=self.uids[block])
        answer = self.network.wait_for(
            asyncio.wait_for(self.network.ask(peer_id, HANDLER + "rpc_info", question, ExpertInfo), timeout),
            timeout + 1,
        )
        return int(MSGPackSerializer.loads(answer.serialized_info)["cache_tokens_available"])
