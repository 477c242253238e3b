"""Measures rows of different lengths in one session and in several, and as two rules of the scheduler divide them."""

from __future__ import annotations

import itertools
import random
import statistics
import threading
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench_swarm import bench_swarm
from benchmarks.comparison import Name, in_turn, seconds
from langchain_petals.engine import Request, Sampling, Settings
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.bench_swarm import BenchSwarm
    from langchain_petals.engine import Engine

ROWS = 16
SHORTEST = 32
NEW_TOKENS = 32
DIFFERENCES = (0, 8, 32, 128, 512)
SESSIONS = (1, 2, 4, 16)
DELAYS = (0, 0.025, 0.1)
LONGEST_CELL = 80.0  # seconds; slower cells are not measured
SETTINGS = Settings(session_cache=0)

Line = tuple[str, ...]
HEADER: Line = ("a hop", "longest - shortest", *(f"{count} session{'s' * (count > 1)}" for count in SESSIONS))
RULES = ("fixed rule", "measured rule")
RULES_HEADER: Line = ("a hop", "longest - shortest", *RULES, "ratio")


def lines(rounds: int, slow_rounds: int) -> Iterator[Line]:
    """Yield a line for each delay and difference, with the seconds of all rows in each number of sessions.

    Args:
        rounds: Rounds where hops are not delayed.
        slow_rounds: Rounds where they are.
    """

    def works(bench: BenchSwarm, delay: float, difference: int) -> dict[int, Callable[[], float]]:
        requests = _requests(difference)
        return {
            count: _running(bench, requests, count)
            for count in SESSIONS
            if 4 * delay * (NEW_TOKENS + difference // count) < LONGEST_CELL
        }

    for delay, difference, taken in _measured(works, rounds, slow_rounds):
        cells = (f"{statistics.median(taken[count]):.2f} s" if count in taken else "" for count in SESSIONS)
        yield f"{delay * 1000:g} ms", str(difference), *cells


def rule_lines(rounds: int, slow_rounds: int) -> Iterator[Line]:
    """Yield a line for each delay and difference, with the seconds of all rows by both rules.

    Args:
        rounds: Rounds where hops are not delayed.
        slow_rounds: Rounds where they are.
    """

    def works(bench: BenchSwarm, _: float, difference: int) -> dict[str, Callable[[], float]]:
        return rules(bench.engine, _requests(difference))

    for delay, difference, by_rule in _measured(works, rounds, slow_rounds):
        taken = [by_rule[name] for name in RULES]
        ratio = statistics.median(fixed / measured for fixed, measured in zip(*taken, strict=True))
        cells = (f"{statistics.median(each):.2f} s" for each in taken)
        yield f"{delay * 1000:g} ms", str(difference), *cells, f"{ratio:.2f} x"


def _measured(
    works: Callable[[BenchSwarm, float, int], dict[Name, Callable[[], float]]], rounds: int, slow_rounds: int
) -> Iterator[tuple[float, int, dict[Name, Sequence[float]]]]:
    """Yield what `works` took for each delay and difference."""
    for delay in DELAYS:
        with bench_swarm(hop_delay=delay) as bench:
            learn(bench.engine)
            for difference in DIFFERENCES:
                measured = works(bench, delay, difference)
                yield delay, difference, in_turn(measured, rounds=slow_rounds if delay else rounds, warm_up=not delay)


def learn(engine: Engine) -> None:
    """Run a few requests, as a program has done before it runs a large batch: alone and side by side."""
    for count in (1, 4):
        generations = [Generation(request) for request in _requests(0)[:count]]
        _run(engine, [[each] for each in generations])


def rules(engine: Engine, requests: Sequence[Request]) -> dict[str, Callable[[], float]]:
    """Return measurements of requests that arrive together: the fixed rule, and the one that knows what steps cost."""
    fixed = Scheduler(engine._run)  # noqa: SLF001 - what the engine does before it has measured a step

    def scheduled(put: Callable[[Sequence[Generation]], object]) -> Callable[[], float]:
        def work() -> None:
            generations = [Generation(request) for request in requests]
            put(generations)
            for generation in generations:
                list(generation)

        return lambda: seconds(work)

    measured = engine._scheduler  # noqa: SLF001 - as `submit`, without idle sessions
    return {name: scheduled(partial(_put, scheduler)) for name, scheduler in zip(RULES, (fixed, measured), strict=True)}


def _put(scheduler: Scheduler, generations: Sequence[Generation]) -> None:
    scheduler.put(generations, SETTINGS)


def _requests(difference: int) -> list[Request]:
    """Return rows with evenly spread lengths."""
    draw = random.Random(0)
    sampling = Sampling(greedy=True, min_new_tokens=NEW_TOKENS)
    lengths = [SHORTEST + difference * row // (ROWS - 1) for row in range(ROWS)]
    return [Request([draw.randrange(256) for _ in range(length)], NEW_TOKENS, sampling) for length in lengths]


def _running(bench: BenchSwarm, requests: Sequence[Request], sessions: int) -> Callable[[], float]:
    """Return a measurement of rows of which neighbours share a session."""
    together = ROWS // sessions

    def work() -> None:
        generations = [Generation(request) for request in requests]
        _run(bench.engine, [generations[start : start + together] for start in range(0, ROWS, together)])

    return lambda: seconds(work)


def _run(engine: Engine, groups: Sequence[list[Generation]]) -> None:
    run = engine._run  # noqa: SLF001 - bypasses the scheduler, whose rule is measured
    threads = [threading.Thread(target=run, args=(group, SETTINGS)) for group in groups]
    for thread in threads:
        thread.start()
    for generation in itertools.chain.from_iterable(groups):
        list(generation)
    for thread in threads:
        thread.join()
