"""Measures rows of different lengths in one session and in several, for the scheduler's rule."""

from __future__ import annotations

import random
import statistics
import threading
from typing import TYPE_CHECKING

from benchmarks.bench_swarm import BenchSwarm, bench_swarm
from benchmarks.comparison import in_turn, seconds
from langchain_petals.engine import Request, Sampling, Settings
from langchain_petals.engine.generation import Generation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROWS = 16
SHORTEST = 32
NEW_TOKENS = 32
DIFFERENCES = (0, 8, 32, 128, 512)
SESSIONS = (1, 2, 4, 16)
DELAYS = (0, 0.025, 0.1)
LONGEST_CELL = 80.0  # seconds; slower cells are not measured

Line = tuple[str, ...]
HEADER: Line = ("a hop", "longest - shortest", *(f"{count} session{'s' * (count > 1)}" for count in SESSIONS))


def lines(rounds: int) -> Iterator[Line]:
    """Yield a line for each delay and difference, with the seconds of all rows in each number of sessions."""
    for delay in DELAYS:
        with bench_swarm(hop_delay=delay) as bench:
            for difference in DIFFERENCES:
                works = {
                    count: _running(bench, difference, count)
                    for count in SESSIONS
                    if 4 * delay * (NEW_TOKENS + difference // count) < LONGEST_CELL
                }
                taken = in_turn(works, rounds=1 if delay else rounds, warm_up=not delay)
                cells = (f"{statistics.median(taken[count]):.2f} s" if count in taken else "" for count in SESSIONS)
                yield f"{delay * 1000:g} ms", str(difference), *cells


def _running(bench: BenchSwarm, difference: int, sessions: int) -> Callable[[], float]:
    """Return a measurement of rows with evenly spread lengths, where neighbours share a session."""
    draw = random.Random(0)
    lengths = [SHORTEST + difference * row // (ROWS - 1) for row in range(ROWS)]
    requests = [
        Request(
            [draw.randrange(256) for _ in range(length)], NEW_TOKENS, Sampling(greedy=True, min_new_tokens=NEW_TOKENS)
        )
        for length in lengths
    ]
    together = ROWS // sessions
    groups = [requests[start : start + together] for start in range(0, ROWS, together)]
    return lambda: seconds(lambda: _run(bench, groups))


def _run(bench: BenchSwarm, groups: Sequence[Sequence[Request]]) -> None:
    settings = Settings(session_cache=0)
    threads = []
    generations = []
    for group in groups:
        group_generations = [Generation(request) for request in group]
        generations += group_generations
        run = bench.engine._run  # noqa: SLF001 - bypasses the scheduler, whose rule is measured
        threads.append(threading.Thread(target=run, args=(group_generations, settings)))
    for thread in threads:
        thread.start()
    for generation in generations:
        list(generation)
    for thread in threads:
        thread.join()
