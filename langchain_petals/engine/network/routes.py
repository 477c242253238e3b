"""Which servers hold which blocks of a model, and which of them to use."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import random
import threading
import time
from typing import TYPE_CHECKING, Any

from langchain_petals.engine.network.announcements import online_servers
from langchain_petals.engine.network.hivemind_parts import ExpertInfo, ExpertUID, MSGPackSerializer
from langchain_petals.engine.network.network import CLOSED
from langchain_petals.engine.network.route_table import NO_ROOM, RouteTable
from langchain_petals.engine.network.span_stream import HANDLER
from langchain_petals.errors import SwarmError, SwarmUnreachableError, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from langchain_petals.engine.network.network import Network
    from langchain_petals.engine.network.server import Server, Span

logger = logging.getLogger(__name__)

_FRESH_SECONDS, _EXPIRED_SECONDS = 60.0, 120.0  # servers announce themselves every minute, for two
_LONGEST_READING = 60.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0  # seconds between two readings while blocks are missing
_BAN_SECONDS, _LONGEST_BAN = 15.0, 3600.0
_LIMIT_SECONDS = 900.0  # that a server's word about its room is believed
# Seconds by which servers seem slower. One with too little room costs more than any number of banned ones.
_TOO_SMALL, _BANNED = 1e9, 1e6
_MOST_PINGED = 30  # servers at either end of the model, at each reading
_PING_WORK = 0.01  # seconds of a ping that are not spent on the way; on one machine, it takes as long
_SMOOTHING = 0.2  # weight of the newest round trip in the average


TIMED_OUT = TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError  # one class from Python 3.11 on


class CacheLimitError(SwarmError):
    """Whichever servers a chain is made of, they hold fewer tokens than a session needs.

    Attributes:
        limit: Most tokens that a chain holds for one session.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        super().__init__(f"the servers hold at most {limit} tokens for one session")


class Routes:
    """The servers of one model on one swarm.

    What servers announce is read again in the background when a chain is chosen and the last reading is a minute old;
    and at once where a server has failed, blocks are missing, or all announcements that were read have expired. Round
    trips are measured in the background.

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
        self._latest: Sequence[Span] = ()  # the chain that was chosen last
        self._read_at = -math.inf
        self._reading: asyncio.Task[None] | None = None  # touched on the network's event loop only
        self._is_closed = False
        self._round_trips: dict[str, float] = {}
        self._banned: dict[str, tuple[float, int]] = {}  # until when, and how many times in a row
        self._full: set[str] = set()
        self._limits: dict[str, tuple[int, float]] = {}  # tokens of one session, and until when that is believed

    @property
    def is_open(self) -> bool:
        """Whether the model can be used: neither it nor its swarm has been given up."""
        return not self._is_closed and self.network.is_open

    def close(self) -> None:
        """Give the model up: what fails from now on is no failure of a server."""
        self._is_closed = True

    def read_ahead(self) -> None:
        """Begin to read what servers announce, so that the first call waits less."""
        self.network.start(self._read_in_background())

    def refresh(self, timeout: float) -> None:
        """Read again what servers announce.

        Args:
            timeout: Seconds to wait for the DHT's answer.

        Raises:
            SwarmUnreachableError: There was none.
        """
        self._wait_for(self._read_again, timeout)

    def _wait_for(self, reading: Callable[[], Coroutine[Any, Any, None]], timeout: float) -> None:
        async def bounded() -> None:
            await asyncio.wait_for(reading(), timeout)

        try:
            self.network.wait_for(bounded(), timeout + 1)
        except SwarmUnreachableError:
            raise
        except Exception as error:  # hivemind raises whatever p2pd said
            if not self.is_open:
                raise SwarmUnreachableError(CLOSED) from None
            reason = f"within {timeout:g} s" if isinstance(error, TIMED_OUT) else f"({reason_of(error)})"
            msg = f"The swarm's DHT gave no routes {reason}. Check that the initial peers still run and can be reached."
            raise SwarmUnreachableError(msg) from error

    async def _read_again(self) -> None:
        """Read what servers announce; who asks while that is under way waits for the same answer."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(asyncio.wait_for(self._read(), _LONGEST_READING))
        await asyncio.shield(self._reading)

    async def _read_until_complete(self) -> None:
        """Read what servers announce until all blocks are there: servers may be joining."""
        pause = _FIRST_PAUSE
        await self._read_again()
        while self._table.missing:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await self._read_again()

    async def _read_in_background(self) -> None:
        try:
            await self._read_again()
        except Exception as error:  # noqa: BLE001 - the routes there are will do; the next call tries again
            logger.debug("The routes could not be read again: %r", error)

    async def _read(self) -> None:
        records = await self.network.records(self.uids)
        # off the event loop: in a large swarm, this takes longer than a step
        table = await asyncio.get_running_loop().run_in_executor(None, self._arranged, records)
        with self._lock:
            self._table, self._read_at = table, time.monotonic()
            self._forget_strangers()
        self.network.start(self._ping(table))

    def _forget_strangers(self) -> None:
        """Drop what is known of servers that are not announced any more, and what has expired."""
        now, peer_ids = time.monotonic(), {server.peer_id for server in self._table.servers}
        self._full.clear()
        self._round_trips = {peer: seconds for peer, seconds in self._round_trips.items() if peer in peer_ids}
        self._limits = {peer: known for peer, known in self._limits.items() if peer in peer_ids and now < known[1]}
        self._banned = {peer: ban for peer, ban in self._banned.items() if peer in peer_ids or now < ban[0]}

    def _arranged(self, records: list[tuple[int, object, object, float]]) -> RouteTable:
        known = {server.peer_id for server in self._table.servers}
        servers = [server for server in online_servers(records, len(self.uids), known) if self._may_use(server)]
        return RouteTable(servers, len(self.uids), self.prefix)

    def _may_use(self, server: Server) -> bool:
        if server.peer_id in self._blocked or (self._allowed and server.peer_id not in self._allowed):
            return False
        return self.adapter is None or self.adapter in server.adapters

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
            timeout: Seconds to wait for servers of blocks that have none.

        Returns:
            The chain, and how many tokens to reserve: `max_length`, or less where a server is known to have less.

        Raises:
            BlocksMissingError: Some blocks have no server.
            CacheLimitError: No chain has room for the tokens that are needed.
            SwarmUnreachableError: The DHT gave no answer.
        """
        table = self._complete_table(timeout)
        now = time.monotonic()
        with self._lock:
            penalties = dict.fromkeys(self._full, NO_ROOM)
            penalties |= {peer: _BANNED for peer, (until, _) in self._banned.items() if now < until}
            limits = {peer: limit for peer, (limit, until) in self._limits.items() if now < until}
            round_trips = dict(self._round_trips)
        if (room := table.room(limits)) < needed:
            raise CacheLimitError(int(room))
        penalties |= {peer: _TOO_SMALL for peer, limit in limits.items() if limit < needed}
        self._latest = chain = table.choose(max_length, round_trips, penalties)
        logger.debug("Route: %s", " => ".join(f"{s.start}:{s.end} via {s.server.peer_id}" for s in chain))
        return chain, min(max_length, *(limits.get(span.server.peer_id, max_length) for span in chain))

    def _complete_table(self, timeout: float) -> RouteTable:
        """Return the servers, read again where that is due; wait for servers of blocks that have none."""
        if self._table.missing:
            begun = time.monotonic()
            try:
                self._wait_for(self._read_until_complete, timeout)
            except SwarmUnreachableError:
                if not self.is_open or self._read_at < begun:
                    raise
        elif time.monotonic() - self._read_at > _EXPIRED_SECONDS:  # after a pause; the servers may be others now
            try:
                self._wait_for(self._read_again, timeout)
            except SwarmUnreachableError as error:
                if not self.is_open:
                    raise
                logger.debug("The routes could not be read again: %r", error)  # those there are may still do
        elif time.monotonic() - self._read_at > _FRESH_SECONDS:
            self.network.start(self._read_in_background())
        return self._table

    def has_way_around(self, span: Span) -> bool:
        """Whether other servers, which are not banned, hold the blocks of a span."""
        with self._lock:
            now = time.monotonic()
            banned = {peer for peer, (until, _) in self._banned.items() if now < until}
        return self._table.is_covered_without(span, banned | {span.server.peer_id})

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
        """Remember for a while how many tokens of one session a server has room for."""
        with self._lock:
            self._limits[peer_id] = limit, time.monotonic() + _LIMIT_SECONDS

    @property
    def latest(self) -> Sequence[Span]:
        """The chain that was chosen last; empty before the first."""
        return self._latest

    @property
    def latency(self) -> float | None:
        """Seconds for which a step through the latest chain is on its way, as pings say; None where none was measured.

        A server in the middle of the model is not pinged; it counts as the mean of the others.
        """
        with self._lock:
            pings = [self._round_trips.get(span.server.peer_id, math.inf) for span in self._latest]
        known = [max(0.0, seconds - _PING_WORK) for seconds in pings if math.isfinite(seconds)]
        return sum(known) / len(known) * len(pings) if known else None

    @property
    def room(self) -> float:
        """Tokens of attention cache that all servers of the latest chain have announced as free; else infinite."""
        left = {server.peer_id: server.cache_tokens_left for server in self._table.servers}
        rooms = [
            (free, span.end - span.start)
            for span in self._latest
            if (free := left.get(span.server.peer_id)) is not None
        ]
        return min((free / (2 * blocks) for free, blocks in rooms), default=math.inf)

    def free_cache_tokens(self, peer_id: str, block: int, timeout: float = 10) -> int:
        """Ask a server how much attention cache it has free; the DHT's answer may be two minutes old.

        Args:
            peer_id: The server, in base 58.
            block: One of its blocks.
            timeout: Seconds to wait for the answer.

        Returns:
            Tokens of a single block: a session of n tokens on three blocks takes 3 * n.

        Raises:
            SwarmError: The server gave no answer, or none that makes sense.
        """
        question = ExpertUID(uid=self.uids[block])

        async def ask() -> Any:
            return await asyncio.wait_for(
                self.network.ask(peer_id, HANDLER + "rpc_info", question, ExpertInfo), timeout
            )

        try:
            answer = MSGPackSerializer.loads(self.network.wait_for(ask(), timeout + 1).serialized_info)
            free = answer.get("cache_tokens_available") if isinstance(answer, dict) else None
        except SwarmError:
            raise
        except Exception as error:  # hivemind raises whatever p2pd said; what a stranger sends may break msgpack, too
            msg = f"The server {peer_id} did not tell how much attention cache it has free: {reason_of(error)}"
            raise SwarmError(msg) from error
        if not isinstance(free, int) or isinstance(free, bool) or free < 0:
            msg = f"The server {peer_id} gave no number of tokens that it has free, but {free!r:.100}"
            raise SwarmError(msg)
        return free
