"""The chain that is chosen costs no more than any other, whatever servers there are."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.engine.network.route_table import NO_ROOM, RouteTable
from langchain_petals.engine.network.server import Server
from langchain_petals.errors import BlocksMissingError

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from langchain_petals.engine.network.server import Span

OVERHEAD = 0.018
LENGTH = 100


def delay(round_trip: float | None) -> float:
    return 0.15 if round_trip is None else min(round_trip / 2, 5.0)


def entering(server: Server) -> float:
    left = server.cache_tokens_left
    return OVERHEAD + (NO_ROOM if left is not None and 2 * LENGTH * (server.end - server.start) > left else 0)


def cost(chain: Sequence[Span], round_trips: Mapping[str, float]) -> float:
    """Return the expected seconds of one token."""
    total = delay(round_trips.get(chain[0].server.peer_id)) + delay(round_trips.get(chain[-1].server.peer_id))
    for before, span in zip((None, *chain), chain, strict=False):
        total += entering(span.server) + (span.end - span.start) / span.server.blocks_per_second
        if before is not None:
            total += delay(before.server.next_pings.get(span.server.peer_id))
    return total


def least_cost(servers: Sequence[Server], blocks: int, round_trips: Mapping[str, float]) -> float:
    """Return the cost of the best chain, by Dijkstra's algorithm over all servers and blocks."""
    queue = [
        (delay(round_trips.get(each.peer_id)) + entering(each), 0, each.peer_id) for each in servers if not each.start
    ]
    named = {server.peer_id: server for server in servers}
    heapq.heapify(queue)
    done = set()
    while True:
        total, block, peer_id = heapq.heappop(queue)
        if block == blocks:
            return total
        if (block, peer_id) in done:
            continue
        done.add((block, peer_id))
        server = named[peer_id]
        total += (server.end - block) / server.blocks_per_second
        if server.end == blocks:
            heapq.heappush(queue, (total + delay(round_trips.get(peer_id)), blocks, peer_id))
        for other in servers:
            if other.start <= server.end < other.end:
                hop = delay(server.next_pings.get(other.peer_id)) + entering(other)
                heapq.heappush(queue, (total + hop, server.end, other.peer_id))


def drawn(rng: random.Random, number: int, blocks: int, longest: int) -> list[Server]:
    servers = []
    for index in range(number):
        length = rng.randint(1, min(longest, blocks))
        start = rng.randint(0, blocks - length)
        pings = {f"peer {rng.randrange(number)}": rng.expovariate(8) for _ in range(rng.randint(0, 6))}
        left = rng.choice([None, 0, 10**9])
        speed = rng.uniform(20, 600)
        servers.append(Server(f"peer {index}", start, start + length, speed, cache_tokens_left=left, next_pings=pings))
    return servers


@given(st.randoms(use_true_random=False), st.integers(3, 60), st.integers(1, 10), st.integers(1, 6))
def test_no_chain_is_better(rng: random.Random, number: int, blocks: int, longest: int) -> None:
    servers = drawn(rng, number, blocks, longest)
    round_trips = {f"peer {index}": rng.expovariate(8) for index in range(0, number, 2)}
    table = RouteTable(servers, blocks, "model")
    if table.missing:
        with pytest.raises(BlocksMissingError):
            table.choose(LENGTH, round_trips)
        return
    chain = table.choose(LENGTH, round_trips)
    assert [span.start for span in chain] == [0, *(span.end for span in chain[:-1])]
    assert chain[-1].end == blocks
    assert all(span.server.start <= span.start and span.end == span.server.end for span in chain)
    assert cost(chain, round_trips) == pytest.approx(least_cost(servers, blocks, round_trips))


def test_blocks_without_servers_are_named() -> None:
    table = RouteTable([Server("a", 0, 2), Server("b", 4, 5)], 7, "model")
    assert table.missing == [2, 3, 5, 6]
    with pytest.raises(BlocksMissingError, match=r"'model' holds block\(s\) 2, 3, 5, 6"):
        table.choose(LENGTH, {})


def test_a_swarm_without_servers_has_no_chain() -> None:
    with pytest.raises(BlocksMissingError):
        RouteTable([], 3, "model").choose(LENGTH, {})


def test_a_penalty_makes_others_preferred_and_forbids_nothing() -> None:
    table = RouteTable([Server("fast", 0, 3, 1000.0), Server("slow", 0, 3, 1.0)], 3, "model")
    assert [span.server.peer_id for span in table.choose(LENGTH, {})] == ["fast"]
    assert [span.server.peer_id for span in table.choose(LENGTH, {}, {"fast": 1e6})] == ["slow"]
    assert [span.server.peer_id for span in table.choose(LENGTH, {}, {"fast": 1e6, "slow": 2e6})] == ["fast"]


@pytest.mark.parametrize(
    ("others", "is_covered"), [([(0, 3)], True), ([(0, 1), (1, 3)], True), ([(0, 2)], False), ([], False)]
)
def test_a_way_around_a_span_is_known(others: list[tuple[int, int]], *, is_covered: bool) -> None:
    own = Server("own", 0, 3)
    table = RouteTable([own, *(Server(f"{start}", start, end) for start, end in others)], 3, "model")
    [span] = table.choose(LENGTH, {}, {server.peer_id: 1e6 for server in table.servers if server is not own})
    assert table.is_covered_without(span, {"own"}) is is_covered
    assert not table.is_covered_without(span, {server.peer_id for server in table.servers})


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        ({}, math.inf),
        ({"whole": 100}, math.inf),
        ({"whole": 100, "front": 300}, 300),
        ({"whole": 100, "front": 300, "back": 200}, 200),
        ({"whole": 1000, "front": 300, "back": 200}, 1000),
        ({"whole": 250, "front": 300, "back": 200}, 250),
    ],
)
def test_the_room_of_a_model_is_that_of_its_roomiest_chain(limits: dict[str, int], room: float) -> None:
    table = RouteTable([Server("whole", 0, 4), Server("front", 0, 2), Server("back", 1, 4)], 4, "model")
    assert table.room(limits) == room
