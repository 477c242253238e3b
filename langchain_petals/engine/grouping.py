"""Which rows share a session, so that all are done as soon as possible.

Rows of one session make their steps together: they are fed up to the end of the shortest prompt, and then one token at
a time, until the last one is done. A row that has a session to itself sends its whole prompt at once, and what its
grammar forces without a step for each token. But each session has steps of its own, whose work is done in turn.

A group of neighbours in the order of the rows takes some time alone, and some work. The groups together take at least
as long as the slowest one alone, and at least as long as all their work. For each limit of the first, the division with
the least work is found by dynamic programming; of these, the one that is done first is taken.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from langchain_petals.engine.step_costs import contended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from langchain_petals.engine.expectations import Expected
    from langchain_petals.engine.step_costs import Costs

    _Numbers = NDArray[np.float64]

MOST_SESSIONS = 32
"""Most sessions that run side by side for one plan: each is a thread, and a connection to every server of the chain."""

_LIMITS = 32  # most limits of the slowest group that are tried
_OPENING = 1  # steps that a session costs when it is opened
_LEAST_SHARE = 0.02  # steps for each token that are expected at least
_WORTH = 0.98  # a division into more sessions must be expected to take at most so much of the time


@dataclass(frozen=True)
class _Groups:
    """All groups of neighbours: what each takes, by the number of its first row and the number of its rows less one.

    Attributes:
        latency: Seconds for which it only waits.
        work: Seconds of its work.
        longest: Most tokens of one of its rows.
    """

    latency: _Numbers
    work: _Numbers
    longest: _Numbers


def divide(
    rows: Sequence[Expected],
    costs: Costs,
    *,
    most_rows: int,
    chunk_tokens: int,
    room: float = math.inf,
    reserved: Callable[[int, int], int] = lambda rows, longest: rows * longest,
) -> list[int]:
    """Divide rows into groups of neighbours, each for one session, all run at the same time.

    There are at most `MOST_SESSIONS` groups, unless that many groups of `most_rows` do not hold all rows.

    Args:
        rows: What is expected of the rows, in an order in which similar ones are neighbours.
        costs: What steps cost.
        most_rows: Most rows of one group.
        chunk_tokens: Most tokens (rows times length) of one step.
        room: Tokens of attention cache that the servers have free. If no division fits into it, the one that needs the
            least is taken.
        reserved: Returns the tokens that a session occupies, given its number of rows and the length of the longest.

    Returns:
        The number of rows of each group, in order.
    """
    groups = _costs_of_groups(rows, costs, min(most_rows, len(rows)), chunk_tokens)
    best: list[int] = []
    smallest: list[int] = []
    least, fewest = math.inf, math.inf
    for sizes in _divisions(groups, len(rows)):
        starts = [0, *itertools.accumulate(sizes[:-1])]
        chosen = starts, [size - 1 for size in sizes]
        taken = sum(map(reserved, sizes, groups.longest[chosen].astype(int).tolist())) if room < math.inf else 0
        if not smallest or taken < fewest:
            smallest, fewest = sizes, taken
        works, latencies = groups.work[chosen].tolist(), groups.latency[chosen].tolist()
        total = sum(works)
        seconds = max(contended(*each, total) for each in zip(latencies, works, strict=True))
        if taken <= room and len(sizes) <= MOST_SESSIONS and seconds < _WORTH * least:
            best, least = sizes, seconds
    return best or smallest


def _costs_of_groups(rows: Sequence[Expected], costs: Costs, most: int, chunk_tokens: int) -> _Groups:
    count = len(rows)
    shortest, end, longest = (np.full((count, most), value) for value in (math.inf, 0.0, 0.0))
    spared = np.ones((count, most))
    for more in range(most):  # groups with one more row than those before
        last, those, before = rows[more:], slice(0, count - more), max(0, more - 1)
        shortest[those, more] = np.minimum(shortest[those, before], [row.prompt for row in last])
        end[those, more] = np.maximum(end[those, before], [row.prompt + row.answer for row in last])
        longest[those, more] = np.maximum(longest[those, before], [row.longest for row in last])
        spared[those, more] = spared[those, before] * [1 - row.together for row in last]
    sizes = np.arange(1, most + 1, dtype=float)
    share = 1 - spared  # of the positions, those at which at least one row needs a step
    share[:, 0] = [row.alone for row in rows]
    share = np.maximum(share, _LEAST_SHARE)
    real = np.isfinite(shortest)  # the last rows have no such large groups
    prompts = np.where(real, shortest, 1.0)
    chunks = np.maximum(1, chunk_tokens // sizes)
    whole = prompts // chunks
    rest = prompts - whole * chunks
    steps = np.maximum(0.0, end - prompts - 1) * share
    latency = costs.latency * (_OPENING + whole + (rest > 0) + steps)
    work = costs.work(sizes, 1 / share) * steps + costs.work(sizes, chunks) * whole
    work += costs.work(sizes, np.maximum(rest, 1.0)) * (rest > 0) + _OPENING * costs.fixed
    return _Groups(np.where(real, latency, math.inf), np.where(real, work, math.inf), longest)


def _divisions(groups: _Groups, count: int) -> Iterator[list[int]]:
    """Yield for each limit of the slowest group the division with the least work, those with fewer groups first."""
    alone = groups.latency + groups.work
    most = alone.shape[1]
    limits = np.unique(alone[np.isfinite(alone)])
    limits = limits[limits >= alone[:, 0].max()]  # each row is in some group, and no group is faster than its rows
    if len(limits) > _LIMITS:
        limits = limits[np.unique(np.geomspace(1, len(limits), _LIMITS).round().astype(int)) - 1]
    allowed = np.where(alone[:, :, None] <= limits, groups.work[:, :, None], math.inf)
    least = np.full((count + 1, len(limits)), math.inf)  # work of the first rows
    least[0] = 0.0
    last = np.zeros((count + 1, len(limits)), dtype=np.int64)  # rows of their last group
    for end in range(1, count + 1):
        sizes = np.arange(1, min(most, end) + 1)
        works = least[end - sizes] + allowed[end - sizes, sizes - 1]
        best = works.argmin(axis=0)
        least[end], last[end] = np.take_along_axis(works, best[None], axis=0)[0], sizes[best]
    found: dict[tuple[int, ...], None] = {}
    for limit in range(len(limits)):
        division, end = [], count
        while end:
            division.append(int(last[end, limit]))
            end -= division[-1]
        found[tuple(reversed(division))] = None
    sessions = max(MOST_SESSIONS, -(-count // most))
    if count > sessions:  # all of the others may have more
        found[tuple((count + number) // sessions for number in range(sessions))] = None
    yield from sorted(map(list, found), key=len)
