"""Routes in a large swarm: how long reading and choosing take, and what the chosen chain costs."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import bounded, faster, in_turn, seconds
from langchain_petals.engine.network import NO_ROOM, RouteTable, Span, online_servers
from langchain_petals.swarm import PROGRAM, environment_for, servers_python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from benchmarks.comparison import Comparison
    from benchmarks.effort import Effort
    from langchain_petals.engine.network import Server

BLOCKS = 126  # as in a model of 405B parameters
SERVERS = 10_000
LONGEST_SPAN = 16  # blocks
TOKENS = 2_000
NEIGHBOURS = 10  # as many as petals' servers ping
PINGED = 60  # servers whose round trip from here is known
MOST_SWARMS = 2  # petals' own search takes most of a minute for each
READING_SECONDS, CHOOSING_SECONDS, EXCESS_MILLISECONDS = 1.0, 0.05, 1e-6
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
THEIRS = Path(__file__).with_name("petals_routes.py")


@dataclass(frozen=True)
class SimulatedSwarm:
    """A swarm as the DHT describes it, and the round trips from here.

    Attributes:
        records: Block, peer id, value and expiration time of each announcement.
        round_trips: Seconds by peer id.
    """

    records: list[tuple[int, str, Any, float]]
    round_trips: dict[str, float]


def simulated_swarm(seed: int) -> SimulatedSwarm:
    """Return a swarm with spans, speeds, latencies and free caches drawn at random."""
    dice = random.Random(seed)
    names = ["12D3KooW" + "".join(dice.choices(ALPHABET, k=44)) for _ in range(SERVERS)]
    starting: dict[int, list[str]] = {}
    spans = []
    for name in names:
        length = dice.randint(1, LONGEST_SPAN)
        start = dice.randint(0, BLOCKS - length)
        spans.append((start, start + length))
        starting.setdefault(start, []).append(name)
    records: list[tuple[int, str, Any, float]] = []
    for name, (start, end) in zip(names, spans, strict=True):
        following = starting.get(end, [])
        value = (
            2,
            dice.uniform(1, 50),
            {
                "start_block": start,
                "end_block": end,
                "version": "2.2.0.post1",
                "inference_rps": dice.uniform(20, 600),
                "cache_tokens_left": dice.choice([0, 10**5, 10**6]),
                "next_pings": {
                    each: dice.expovariate(8) for each in dice.sample(following, min(NEIGHBOURS, len(following)))
                },
                "adapters": [],
                "torch_dtype": "bfloat16",
                "quant_type": "none",
                "using_relay": False,
            },
        )
        records += [(block, name, value, 100.0) for block in range(start, end)]
    records.sort(key=lambda record: record[0])
    ends = [name for name, (start, end) in zip(names, spans, strict=True) if not start or end == BLOCKS]
    return SimulatedSwarm(records, {name: dice.expovariate(8) for name in dice.sample(ends, min(PINGED, len(ends)))})


def large_swarms(effort: Effort) -> Iterator[Comparison]:
    """Read the announcements of large swarms and choose chains, and let petals' own sequence manager do the same.

    Petals' chain is the optimum: it runs Dijkstra's algorithm over all servers and blocks.
    """
    swarms = [simulated_swarm(seed) for seed in range(min(effort.rounds, MOST_SWARMS))]
    theirs = _theirs(swarms)
    reading, choosing, excess = [], [], []
    for swarm, their in zip(swarms, theirs, strict=True):
        table = _table(swarm)
        works = {"reading": _reading(swarm), "choosing": _choosing(table, swarm)}
        taken = in_turn(works, rounds=effort.rounds)
        reading.append(statistics.median(taken["reading"]))
        choosing.append(statistics.median(taken["choosing"]))
        servers = {server.peer_id: server for server in table.servers}
        optimum = [Span(servers[peer_id], start, end) for peer_id, start, end in their["chain"]]
        ours = cost(table.choose(TOKENS, swarm.round_trips), swarm.round_trips)
        excess.append(1000 * (ours - cost(optimum, swarm.round_trips)))
    name = f"{SERVERS:,} servers of {BLOCKS} blocks"
    yield bounded(f"{name}: reading the announcements", max(reading), READING_SECONDS, unit="s")
    yield bounded(f"{name}: choosing a chain", max(choosing), CHOOSING_SECONDS, unit="s")
    yield bounded(f"{name}: cost of a token above the optimum", max(excess), EXCESS_MILLISECONDS, unit="ms")
    against = "petals' sequence manager"
    yield faster(f"{name}: reading", reading, against, [each["reading"] for each in theirs])
    yield faster(f"{name}: choosing", choosing, against, [each["choosing"] for each in theirs])


def _table(swarm: SimulatedSwarm) -> RouteTable:
    return RouteTable(online_servers(swarm.records, BLOCKS), BLOCKS, "model")


def _reading(swarm: SimulatedSwarm) -> Callable[[], float]:
    return lambda: seconds(lambda: _table(swarm))


def _choosing(table: RouteTable, swarm: SimulatedSwarm) -> Callable[[], float]:
    return lambda: seconds(lambda: table.choose(TOKENS, swarm.round_trips))


def _theirs(swarms: Sequence[SimulatedSwarm]) -> list[dict[str, Any]]:
    """Return what petals' sequence manager takes and chooses, in the interpreter of the servers."""
    with tempfile.TemporaryDirectory() as folder:
        questions = []
        for number, swarm in enumerate(swarms):
            questions.append(Path(folder, f"{number}.json"))
            document = {"blocks": BLOCKS, "tokens": TOKENS, "records": swarm.records, "round_trips": swarm.round_trips}
            questions[-1].write_text(json.dumps(document), encoding="utf-8")
        python = servers_python()
        answer = subprocess.run(
            [python, THEIRS, PROGRAM, *questions],
            env=environment_for(python),
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ).stdout
    return [json.loads(line) for line in answer.splitlines() if line.startswith("{")]


def delay(round_trip: float | None) -> float:
    return 0.15 if round_trip is None else min(round_trip / 2, 5.0)


def entering(server: Server) -> float:
    left = server.cache_tokens_left
    return 0.018 + (NO_ROOM if left is not None and 2 * TOKENS * (server.end - server.start) > left else 0)


def cost(chain: Sequence[Span], round_trips: Mapping[str, float]) -> float:
    """Return the expected seconds of one token."""
    total = delay(round_trips.get(chain[0].server.peer_id)) + delay(round_trips.get(chain[-1].server.peer_id))
    for before, span in zip((None, *chain), chain, strict=False):
        total += entering(span.server) + (span.end - span.start) / span.server.blocks_per_second
        if before is not None:
            total += delay(before.server.next_pings.get(span.server.peer_id))
    return total
