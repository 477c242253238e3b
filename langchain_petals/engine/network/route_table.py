"""The fastest chain of servers over all blocks.

A chain enters a server at any block of its span, and leaves it at the end of the span. Its cost is the expected time of
one token, by petals' own model: half a round trip for each hop, the overhead of a request, the time of the blocks, and
a penalty for servers without room in their attention cache. Since chains only go forward, the optimum is found block by
block: the cheapest way to a server that holds block b leads over one of the servers whose spans end there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langchain_petals.engine.network.server import Server, Span
from langchain_petals.errors import BlocksMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    _Costs = NDArray[np.float64]

# Seconds, as in petals' sequence manager.
_UNKNOWN, _LONGEST, _OVERHEAD = 0.15, 5.0, 0.018
NO_ROOM = 10.0
"""Seconds that a server without room in its attention cache seems slower."""


@dataclass(frozen=True)
class _Delays:
    """Known delays from servers whose spans end at a block to servers that hold it.

    Attributes:
        rows: Positions among the servers whose spans end there.
        columns: Positions among the holders.
        seconds: Half a round trip.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    seconds: NDArray[np.float64]


class RouteTable:
    """The servers of a model, arranged for choosing chains; made anew when the announcements have been read again.

    Args:
        servers: Those that are online.
        blocks: Number of blocks of the model.
        prefix: The name under which the blocks are announced; for errors.
    """

    def __init__(self, servers: Sequence[Server], blocks: int, prefix: str) -> None:
        self.servers, self._blocks, self._prefix = list(servers), blocks, prefix
        starts = np.array([server.start for server in servers], dtype=np.int64)
        ends = np.array([min(server.end, blocks) for server in servers], dtype=np.int64)
        self._starts, self._ends = starts, ends
        self._seconds_per_block = np.array([1 / server.blocks_per_second for server in servers])
        left = [math.inf if server.cache_tokens_left is None else server.cache_tokens_left for server in servers]
        self._longest = np.array(left) / (2 * (ends - starts))  # tokens that there is room for
        self._holders = [np.flatnonzero((starts <= block) & (block < ends)) for block in range(blocks)]
        self._leaving = [np.flatnonzero(ends == block) for block in range(blocks + 1)]
        self._delays = self._known_delays()

    def _known_delays(self) -> dict[int, _Delays]:
        """Return, for each block at which spans end, which delays to servers that follow are known."""
        numbers = {server.peer_id: number for number, server in enumerate(self.servers)}
        known = [
            (number, numbers[peer_id], seconds)
            for number, server in enumerate(self.servers)
            for peer_id, seconds in server.next_pings.items()
            if peer_id in numbers
        ]
        if not known:
            return {}
        sources, targets = (np.array(column, dtype=np.int64) for column in list(zip(*known, strict=True))[:2])
        delays = np.minimum(np.array([seconds for *_, seconds in known]) / 2, _LONGEST)
        blocks = self._ends[sources]
        fits = (blocks < self._blocks) & (self._starts[targets] <= blocks) & (blocks < self._ends[targets])
        sources, targets, delays, blocks = sources[fits], targets[fits], delays[fits], blocks[fits]
        order = np.argsort(blocks, kind="stable")
        found = {}
        for part in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1):
            if len(part):
                block = int(blocks[part[0]])
                rows = np.searchsorted(self._leaving[block], sources[part])
                columns = np.searchsorted(self._holders[block], targets[part])
                found[block] = _Delays(rows, columns, delays[part])
        return found

    @property
    def missing(self) -> list[int]:
        """Blocks that no server holds."""
        return [block for block, holders in enumerate(self._holders) if not len(holders)]

    def is_covered_without(self, span: Span, peer_ids: Collection[str]) -> bool:
        """Whether servers other than these hold all blocks of a span."""
        excluded = [number for number, server in enumerate(self.servers) if server.peer_id in peer_ids]
        return all(np.setdiff1d(self._holders[block], excluded).size for block in range(span.start, span.end))

    def room(self, limits: Mapping[str, int]) -> float:
        """Return how many tokens the roomiest chain holds for one session; infinite where that is not known.

        A chain may enter a server at any block. So the servers with enough room form a chain if together they hold all
        blocks.

        Args:
            limits: Tokens that servers hold for one session, by peer id.
        """
        if not limits or self.missing:
            return math.inf
        rooms = np.array([limits.get(server.peer_id, math.inf) for server in self.servers])
        return float(min(rooms[holders].max() for holders in self._holders))

    def choose(
        self,
        max_length: int,
        round_trips: Mapping[str, float],
        penalties: Mapping[str, float] | None = None,
    ) -> list[Span]:
        """Return the fastest chain.

        Args:
            max_length: Tokens of attention cache that each server should have free.
            round_trips: Seconds from here to servers and back, by peer id; infinite for those that gave no answer.
            penalties: Seconds that servers seem slower, by peer id, so that others are preferred.

        Returns:
            Spans in the order of the blocks, which hold all of them.

        Raises:
            BlocksMissingError: Some blocks have no server.
        """
        if self.missing:
            raise BlocksMissingError(self.missing, self._prefix)
        servers, last = self.servers, self._blocks
        own = np.array([_delay(round_trips.get(server.peer_id)) for server in servers])
        entering = _OVERHEAD + NO_ROOM * (self._longest < max_length)
        if penalties:
            entering += np.array([penalties.get(server.peer_id, 0.0) for server in servers])
        # for each server, the cheapest way to the end of its span: its cost, where it is entered, and from which server
        finished = np.full(len(servers), math.inf)
        entered = np.zeros(len(servers), dtype=np.int64)
        before = np.full(len(servers), -1, dtype=np.int64)
        for block, holders in enumerate(self._holders):
            if block == 0:
                arrived, via = own[holders], np.full(len(holders), -1)
            elif len(self._leaving[block]):
                arrived, via = self._arrivals(block, finished)
            else:
                continue  # no chain changes servers here
            cost = arrived + entering[holders] + (self._ends[holders] - block) * self._seconds_per_block[holders]
            better = cost < finished[holders]
            chosen = holders[better]
            finished[chosen], entered[chosen], before[chosen] = cost[better], block, via[better]
        ending = self._leaving[last]
        number = int(ending[np.argmin(finished[ending] + own[ending])])
        chain: list[Span] = []
        while number >= 0:
            chain.append(Span(servers[number], int(entered[number]), int(self._ends[number])))
            number = int(before[number])
        return chain[::-1]

    def _arrivals(self, block: int, finished: _Costs) -> tuple[_Costs, NDArray[np.int64]]:
        """Return the cheapest cost to come to each holder of a block from a server whose span ends there, and which."""
        leaving, holders = self._leaving[block], self._holders[block]
        left = finished[leaving]
        first = int(np.argmin(left))
        arrived = np.full(len(holders), left[first] + _UNKNOWN)
        via = np.full(len(holders), leaving[first])
        known = self._delays.get(block)
        if known is None:
            return arrived, via
        # where the delay from the cheapest server is known, another one is the cheapest of the usual delay
        columns = np.unique(known.columns[known.rows == first])
        if len(columns):
            costs = np.repeat(left[:, None] + _UNKNOWN, len(columns), axis=1)
            here = np.isin(known.columns, columns)
            costs[known.rows[here], np.searchsorted(columns, known.columns[here])] = math.inf
            best = costs.argmin(axis=0)
            arrived[columns], via[columns] = costs[best, np.arange(len(columns))], leaving[best]
        costs = left[known.rows] + known.seconds
        order = np.argsort(-costs, kind="stable")  # of several values for one place, numpy keeps the last
        cheapest = np.full(len(holders), math.inf)
        source = np.empty(len(holders), dtype=np.int64)
        cheapest[known.columns[order]], source[known.columns[order]] = costs[order], leaving[known.rows[order]]
        better = cheapest < arrived
        return np.where(better, cheapest, arrived), np.where(better, source, via)


def _delay(round_trip: float | None) -> float:
    """Return the seconds of one way."""
    return _UNKNOWN if round_trip is None else min(round_trip / 2, _LONGEST)
