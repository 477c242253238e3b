"""`divide`: the best groups by brute force, its bounds, and whole runs in a simulated queue."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_petals.engine.expectations import Expected
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.grouping import MOST_SESSIONS, divide
from langchain_petals.engine.request import Request
from langchain_petals.engine.scheduler import _of_similar_length
from langchain_petals.engine.settings import Settings
from langchain_petals.engine.step_costs import Costs, StepCosts, contended

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NEAR = Costs(latency=0.0, fixed=0.005, row=0.0007, token=0.0001, several=0.0)
FAR = Costs(latency=0.1, fixed=0.005, row=0.0007, token=0.0001, several=0.0)
CHUNK = 1024


def row(prompt: int, answer: float = 32, alone: float = 1.0, together: float = 1.0) -> Expected:
    return Expected(prompt, answer, alone, together, int(prompt + answer))


def groups(rows: Sequence[Expected], costs: Costs, most_rows: int = 32, **bounds: float) -> list[int]:
    return divide(rows, costs, most_rows=most_rows, chunk_tokens=CHUNK, **bounds)


def parts(rows: Sequence[Expected], sizes: Sequence[int]) -> list[Sequence[Expected]]:
    ends = list(itertools.accumulate(sizes))
    return [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def steps(group: Sequence[Expected]) -> list[tuple[int, float]]:
    """Return the rows and the tokens of each step of a session, as the token loop makes them."""
    shortest = min(each.prompt for each in group)
    chunk = max(1, CHUNK // len(group))
    prompt = [(len(group), chunk)] * (shortest // chunk) + [(len(group), shortest % chunk)] * (shortest % chunk > 0)
    share = 1.0
    for each in group:
        share *= 1 - each.together
    share = group[0].alone if len(group) == 1 else 1 - share
    positions = max(each.prompt + each.answer for each in group) - shortest - 1
    return [*prompt, *[(len(group), 1 / share)] * round(positions * share)]


# ---- against brute force


def expected_seconds(rows: Sequence[Expected], sizes: Sequence[int], costs: Costs) -> float:
    """Return what the rule minimises, computed step by step."""
    times = []
    for group in parts(rows, sizes):
        made = steps(group)
        times.append(
            ((len(made) + 1) * costs.latency, sum(costs.work(*step) for step in made) + costs.fixed)  # and its opening
        )
    total = sum(work for _, work in times)
    return max(contended(latency, work, total) for latency, work in times)


def divisions(count: int, most: int) -> Iterator[list[int]]:
    if not count:
        yield []
    for size in range(1, min(count, most) + 1):
        for rest in divisions(count - size, most):
            yield [size, *rest]


@given(
    lengths=st.lists(st.integers(1, 300) | st.integers(30, 50), min_size=1, max_size=7),
    answer=st.integers(1, 200),
    most=st.integers(1, 8),
    latency=st.sampled_from([0.0, 0.01, 0.1]),
    fixed=st.sampled_from([0.001, 0.01]),
    row_share=st.sampled_from([0.0, 0.1, 0.5]),
)
@settings(max_examples=150)
def test_division_is_as_good_as_the_best_by_brute_force(  # noqa: PLR0917 - hypothesis passes names
    lengths: list[int], answer: int, most: int, latency: float, fixed: float, row_share: float
) -> None:
    costs = Costs(latency, fixed, fixed * row_share, fixed / 50, 0.0)
    rows = [row(length, answer) for length in sorted(lengths)]
    best = min(expected_seconds(rows, sizes, costs) for sizes in divisions(len(rows), most))
    assert expected_seconds(rows, groups(rows, costs, most), costs) <= 1.025 * best


# ---- what is chosen


def test_rows_of_one_length_share_a_session_where_time_goes_into_work() -> None:
    assert groups([row(40)] * 16, NEAR) == [16]


def test_rows_of_very_different_lengths_have_sessions_of_their_own() -> None:
    rows = [row(32 + 512 * number // 15) for number in range(16)]
    assert groups(rows, FAR) == [1] * 16


def test_the_nearer_the_servers_the_more_rows_of_different_lengths_share_a_session() -> None:
    rows = [row(32 + 2 * number) for number in range(16)]
    counts = [
        len(groups(rows, Costs(latency, NEAR.fixed, NEAR.row, NEAR.token, 0.0))) for latency in (0.0, 0.02, 0.1, 0.4)
    ]
    assert counts == sorted(counts)
    assert counts[0] <= 2
    assert counts[-1] >= 8


@pytest.mark.parametrize("count", [64, 256])
def test_sessions_side_by_side_are_limited_however_far_the_servers_are(count: int) -> None:
    rows = [row(4 * number + 4) for number in range(count)]
    sizes = groups(rows, FAR)
    assert sum(sizes) == count
    assert len(sizes) <= MOST_SESSIONS


def test_constrained_rows_have_sessions_of_their_own_where_a_step_waits() -> None:
    constrained = [row(40, 64, 0.3, 0.5) for _ in range(16)]
    assert len(groups(constrained, FAR)) == 16
    assert len(groups([row(40, 64) for _ in range(16)], NEAR)) == 1


def test_constrained_rows_do_not_wait_for_others_that_need_each_step() -> None:
    sizes = groups([row(40, 20)] * 4 + [row(40, 200, 0.3, 0.5)] * 4, FAR)
    assert 4 in itertools.accumulate(sizes)


# ---- bounds


@given(
    lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=100),
    most=st.integers(1, 40),
    costs=st.sampled_from([NEAR, FAR]),
)
@settings(max_examples=50)
def test_every_row_is_in_one_group_of_at_most_so_many_rows(lengths: list[int], most: int, costs: Costs) -> None:
    sizes = groups([row(length) for length in sorted(lengths)], costs, most)
    assert sum(sizes) == len(lengths)
    assert all(1 <= size <= most for size in sizes)


def kept(rows: int, longest: int) -> int:
    """Return what a session reserves where one of a single row can be kept."""
    return max(256, 2 * longest) if rows == 1 else rows * longest


@pytest.mark.parametrize("room", [16 * 256, 6000, 3000, 2000])
def test_sessions_at_the_same_time_fit_into_the_servers_caches(room: int) -> None:
    rows = [row(32 + 4 * number) for number in range(16)]
    sizes = groups(rows, FAR, room=room, reserved=kept)
    assert len(groups(rows, FAR, reserved=kept)) == 16
    assert sum(kept(len(group), max(each.longest for each in group)) for group in parts(rows, sizes)) <= room


def test_without_enough_room_for_any_division_the_smallest_is_taken() -> None:
    rows = [row(32 + 4 * number) for number in range(16)]
    assert groups(rows, FAR, room=0) == [1] * 16
    assert len(groups(rows, FAR, room=0, reserved=kept)) < 10


# ---- whole runs


class Queue:
    """Sessions side by side: each step waits for the latency, and then until servers have done the work before it.

    Args:
        true: What steps cost.
        pinged: The latency that pings tell.

    Attributes:
        costs: Measures the steps.
    """

    def __init__(self, true: Costs, pinged: float | None) -> None:
        self._true, self._now = true, 0.0
        self.costs = StepCosts(lambda: pinged, lambda: self._now)

    def run(self, rows: Sequence[Expected], sizes: Sequence[int]) -> float:
        """Return the seconds until all rows are done."""
        begun = free = self._now
        todo = [steps(group)[::-1] for group in parts(rows, sizes)]
        measuring = [contextlib.ExitStack() for _ in todo]
        events = [(begun, number, "begin") for number in range(len(todo))]
        while events:
            self._now, number, what = heapq.heappop(events)
            size, tokens = todo[number][-1]
            if what == "begin":
                measuring[number].enter_context(self.costs.measure(size, round(tokens)))
                heapq.heappush(events, (self._now + self._true.latency, number, "arrive"))
            elif what == "arrive":
                free = max(free, self._now) + self._true.work(size, tokens)
                heapq.heappush(events, (free, number, "end"))
            else:
                measuring[number].close()
                todo[number].pop()
                if todo[number]:
                    heapq.heappush(events, (self._now, number, "begin"))
        return self._now - begun


def fixed_rule(rows: Sequence[Expected]) -> list[int]:
    """Return the groups of requests before steps were measured."""
    generations = [Generation(Request([1] * each.prompt, int(each.answer))) for each in rows]
    return [len(group) for group in _of_similar_length(generations, Settings())]


def compared(
    true: Costs, rows: Sequence[Expected], believed: Sequence[Expected] | None = None, pinged: float | None = None
) -> float:
    """Return the seconds by the fixed rule as a multiple of those by the measured one, which have taken turns."""
    queue = Queue(true, pinged)
    queue.run(rows[:1], [1])
    measured = fixed = 0.0
    for _ in range(4):
        fixed = queue.run(rows, fixed_rule(rows))
        costs = queue.costs.costs
        assert costs is not None
        measured = queue.run(rows, groups(believed or rows, costs))
    return fixed / measured


@pytest.mark.parametrize("pinged", [None, 0.7, 1.5], ids=["no pings", "fast pings", "slow pings"])
@pytest.mark.parametrize("latency", [0.0, 0.1, 0.4], ids=["near", "25 ms a hop", "100 ms a hop"])
@pytest.mark.parametrize("difference", [0, 8, 32, 128, 512])
def test_measured_rule_is_never_slower_than_the_fixed_one(
    difference: int, latency: float, pinged: float | None
) -> None:
    true = Costs(latency, NEAR.fixed, NEAR.row, NEAR.token, 0.0)
    rows = [row(32 + difference * number // 15) for number in range(16)]
    assert compared(true, rows, pinged=None if pinged is None else pinged * latency) >= 0.95


@pytest.mark.parametrize("wrong", [0.5, 2.0])
@pytest.mark.parametrize("latency", [0.1, 0.4], ids=["25 ms a hop", "100 ms a hop"])
@pytest.mark.parametrize("difference", [8, 32, 128])
def test_wrong_guess_of_the_length_of_answers_costs_little(difference: int, latency: float, wrong: float) -> None:
    true = Costs(latency, NEAR.fixed, NEAR.row, NEAR.token, 0.0)
    rows = [row(32 + difference * number // 15) for number in range(16)]
    believed = [replace(each, answer=wrong * each.answer) for each in rows]
    assert compared(true, rows, believed) >= 0.95


def test_16_constrained_rows_are_done_three_times_sooner_where_servers_are_far() -> None:
    far = Costs(0.4, NEAR.fixed, NEAR.row, NEAR.token, 0.0)
    rows = [row(40, 80, 0.25, 0.4) for _ in range(16)]
    assert compared(far, rows, pinged=0.4) >= 3


@pytest.mark.parametrize(("answer", "times"), [(4, 8.0), (8, 4.5), (16, 2.7)])
def test_short_answers_to_prompts_of_different_lengths_are_done_several_times_sooner(answer: int, times: float) -> None:
    queue = Queue(Costs(0.4, NEAR.fixed, NEAR.row, NEAR.token, 0.0), pinged=0.4)
    rows = [row(32 + 2 * number, answer) for number in range(16)]
    queue.run(rows[:1], [1])
    costs = queue.costs.costs
    assert costs is not None
    with_a_large_limit = [replace(each, answer=256) for each in rows]
    assert queue.run(rows, fixed_rule(with_a_large_limit)) >= times * queue.run(rows, groups(rows, costs))
