"""`StepCosts`: what it finds in simulated steps, whose true costs are known."""

from __future__ import annotations

import math
import random
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langchain_petals.engine.step_costs import Costs, StepCosts, contended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NEAR = Costs(latency=0.0, fixed=0.005, row=0.0006, token=0.0002, several=0.0)
FAR = Costs(latency=0.1, fixed=0.005, row=0.0006, token=0.0002, several=0.0)
WITH_A_FAST_PATH = Costs(latency=0.02, fixed=0.03, row=0.002, token=0.0005, several=0.04)
SHAPES = [(1, 1), (1, 1), (1, 1), (4, 1), (16, 1), (1, 3), (1, 6), (1, 200)]


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Simulation:
    """Steps whose true costs are known.

    Args:
        pinged: The latency that pings tell.
    """

    def __init__(self, pinged: float | None = None) -> None:
        self._clock = Clock()
        self.costs = StepCosts(lambda: pinged, self._clock)

    def step(self, rows: int, tokens: int, seconds: float, sessions: int = 1, chain: object = "servers") -> None:
        """Make a step, and such steps of other sessions that begin and end with it."""
        with self.costs.measure(rows, tokens, chain=chain):
            if sessions > 1:
                self.step(rows, tokens, seconds, sessions - 1, chain)
            else:
                self._clock.now += seconds

    def run(
        self,
        true: Costs,
        *,
        steps: int = 200,
        shapes: Sequence[tuple[int, int]] = SHAPES,
        sessions: Sequence[int] = (1,),
        noise: Callable[[random.Random], float] = lambda _: 1.0,
        chain: object = "servers",
    ) -> None:
        """Make steps that cost what they should, times the noise."""
        dice = random.Random(0)
        for _ in range(steps):
            (rows, tokens), together = dice.choice(shapes), dice.choice(sessions)
            self.step(rows, tokens, true.seconds(rows, tokens, together) * noise(dice), together, chain)

    def seconds(self, rows: int, tokens: int, sessions: int = 1) -> float:
        expected = self.costs.seconds(rows, tokens, sessions)
        assert expected is not None
        return expected


def jitter(dice: random.Random) -> float:
    return 1 + abs(dice.gauss(0, 0.1))


def jitter_with_outliers(dice: random.Random) -> float:
    return 30.0 if dice.random() < 0.1 else jitter(dice)


# ---- what is expected


def test_nothing_is_expected_before_a_step_was_measured() -> None:
    assert StepCosts().costs is None
    assert StepCosts().seconds(1, 1) is None


def test_step_that_raises_is_not_noted() -> None:
    costs = StepCosts()
    with pytest.raises(ConnectionError), costs.measure(1, 1):
        raise ConnectionError
    assert costs.costs is None


def test_unusual_step_is_not_noted() -> None:
    costs = StepCosts()
    with costs.measure(1, 1, is_usual=False):
        pass
    assert costs.costs is None


def test_first_step_counts_at_once() -> None:
    simulation = Simulation()
    simulation.step(1, 1, 0.25)
    assert simulation.seconds(1, 1) == pytest.approx(0.25, rel=0.01)


@pytest.mark.parametrize("true", [NEAR, FAR, WITH_A_FAST_PATH], ids=["near", "far", "fast path"])
def test_costs_are_recovered_from_exact_steps(true: Costs) -> None:
    simulation = Simulation()
    simulation.run(true, sessions=(1, 4, 16), steps=400)
    for rows, tokens in SHAPES:
        for sessions in (1, 4, 16):
            assert simulation.seconds(rows, tokens, sessions) == pytest.approx(
                true.seconds(rows, tokens, sessions), rel=0.05
            )


@pytest.mark.parametrize("noise", [jitter, jitter_with_outliers])
@pytest.mark.parametrize("true", [NEAR, FAR, WITH_A_FAST_PATH], ids=["near", "far", "fast path"])
def test_noise_and_outliers_change_what_is_expected_little(
    true: Costs, noise: Callable[[random.Random], float]
) -> None:
    simulation = Simulation()
    simulation.run(true, sessions=(1, 4, 16), steps=400, noise=noise)
    for rows, tokens in SHAPES[:-1]:
        for sessions in (1, 4, 16):
            assert simulation.seconds(rows, tokens, sessions) == pytest.approx(
                true.seconds(rows, tokens, sessions), rel=0.35
            )


@pytest.mark.parametrize(("true", "least", "most"), [(NEAR, 0.0, 0.1), (FAR, 0.85, 1.0)], ids=["near", "far"])
def test_sessions_side_by_side_tell_latency_from_work(true: Costs, least: float, most: float) -> None:
    simulation = Simulation()
    simulation.run(true, sessions=(1, 8), noise=jitter)
    costs = simulation.costs.costs
    assert costs is not None
    assert least <= costs.latency / costs.seconds(1, 1) <= most


@pytest.mark.parametrize(("pinged", "believed"), [(None, 0.0525), (0.0, 0.0), (0.08, 0.08), (3.0, 0.103)])
def test_pings_tell_the_latency_until_sessions_have_run_side_by_side(pinged: float | None, believed: float) -> None:
    simulation = Simulation(pinged)
    simulation.run(FAR, shapes=[(1, 1)])
    costs = simulation.costs.costs
    assert costs is not None
    assert costs.latency == pytest.approx(believed, abs=0.003)
    simulation.run(FAR, shapes=[(1, 1)], sessions=(1, 8))
    costs = simulation.costs.costs
    assert costs is not None
    assert costs.latency == pytest.approx(FAR.latency, rel=0.05)


@pytest.mark.parametrize("true", [NEAR, FAR])
@pytest.mark.parametrize("shape", [(16, 1), (32, 1), (1, 200)])
@pytest.mark.parametrize("learned", [0, 200])
def test_what_is_believed_stays_where_only_steps_of_one_size_are_measured(
    true: Costs, shape: tuple[int, int], learned: int
) -> None:
    simulation = Simulation()
    simulation.run(true, steps=learned, sessions=(1, 8))
    simulation.run(true, steps=64, shapes=[shape])
    before = simulation.costs.costs
    simulation.run(true, steps=6_000, shapes=[shape], noise=jitter)
    after = simulation.costs.costs
    assert before is not None
    assert after is not None
    for part in ("row", "token", "latency"):
        assert getattr(after, part) <= 3 * getattr(before, part) + 1e-4
    assert after.seconds(*shape) == pytest.approx(true.seconds(*shape), rel=0.1)


def test_few_steps_of_several_tokens_cost_the_surcharge_as_often_as_they_come() -> None:
    one, two = (WITH_A_FAST_PATH.work(1, tokens) for tokens in (1, 2))
    assert WITH_A_FAST_PATH.work(1, 1.1) == pytest.approx(0.9 * one + 0.1 * two)


def test_step_of_several_tokens_is_expected_to_cost_the_surcharge() -> None:
    simulation = Simulation()
    simulation.run(WITH_A_FAST_PATH, shapes=[(1, 1), (1, 2), (1, 5)], noise=jitter)
    for tokens in (2, 3, 4, 5, 8):
        ratio = simulation.seconds(1, tokens) / simulation.seconds(1, 1)
        assert ratio == pytest.approx(WITH_A_FAST_PATH.seconds(1, tokens) / WITH_A_FAST_PATH.seconds(1, 1), rel=0.2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 32, 1000]),
            st.sampled_from([1, 2, 7, 1024, 100_000]),
            st.sampled_from([1e-9, 1e-7, 1e-3, 0.1, 30_000.0, -5.0]),
            st.sampled_from([1, 2, 16]),
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([None, 0.0, 0.1, 1e9]),
)
@example([(1000, 100_000, 0.1, 1)], None)
def test_steps_of_any_size_and_duration_give_finite_costs(
    steps: list[tuple[int, int, float, int]], pinged: float | None
) -> None:
    """As after a machine has slept, or where a clock was set back."""
    simulation = Simulation(pinged)
    for step in steps:
        simulation.step(*step)
        for rows, tokens, sessions in [(1, 1, 1), (32, 1, 16), (1, 4000, 1)]:
            seconds = simulation.costs.seconds(rows, tokens, sessions)
            assert seconds is None or (math.isfinite(seconds) and seconds > 0)


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 64), st.integers(1, 2000), st.floats(1e-6, 1e4), st.integers(1, 5)), min_size=1
    )
)
def test_expected_seconds_are_positive_and_grow_with_the_step_whatever_was_measured(
    steps: list[tuple[int, int, float, int]],
) -> None:
    simulation = Simulation()
    for step in steps:
        simulation.step(*step)
    assert 0 < simulation.seconds(1, 1) <= simulation.seconds(8, 1) * 1.001
    assert simulation.seconds(1, 1) <= simulation.seconds(1, 64) * 1.001
    assert simulation.seconds(1, 1) <= simulation.seconds(1, 1, 8) * 1.001 <= simulation.seconds(1, 1) * 8.1


# ---- changes


@pytest.mark.parametrize(("chain", "steps"), [("servers", 1000), ("other servers", 1)])
@pytest.mark.parametrize(("before", "after"), [(NEAR, FAR), (FAR, NEAR)])
def test_figures_from_before_a_change_are_forgotten(before: Costs, after: Costs, chain: str, steps: int) -> None:
    simulation = Simulation()
    simulation.run(before, steps=1000, sessions=(1, 4))
    simulation.run(after, steps=steps, shapes=[(1, 1)], chain=chain)
    assert simulation.seconds(1, 1) == pytest.approx(after.seconds(1, 1), rel=0.1)


def test_on_other_servers_the_ratios_are_believed_until_they_are_measured() -> None:
    twice = Costs(2 * FAR.latency, 2 * FAR.fixed, 2 * FAR.row, 2 * FAR.token, 0.0)
    simulation = Simulation()
    simulation.run(FAR, steps=1000, sessions=(1, 4))
    simulation.run(twice, steps=1, shapes=[(1, 1)], chain="other servers")
    assert simulation.seconds(16, 1, 4) == pytest.approx(twice.seconds(16, 1, 4), rel=0.1)


def test_long_answer_alone_does_not_make_forget_what_sessions_side_by_side_cost() -> None:
    simulation = Simulation()
    simulation.run(FAR, steps=1000, sessions=(1, 4, 16))
    simulation.run(FAR, steps=5000, shapes=[(1, 1)], noise=jitter)
    assert simulation.seconds(16, 1, 16) == pytest.approx(FAR.seconds(16, 1, 16), rel=0.35)


def test_kinds_of_steps_that_are_not_seen_any_more_are_forgotten() -> None:
    simulation = Simulation()
    for rows in range(1, 40):
        for tokens in (1, 2, 4, 8, 16, 32):
            simulation.step(rows, tokens, 0.1)
    assert len(simulation.costs._kinds) <= 64


# ---- steps at the same time


def test_steps_at_the_same_time_are_counted_by_how_long_they_overlap() -> None:
    clock = Clock()
    costs = StepCosts(clock=clock)
    with costs.measure(1, 1):
        clock.now = 1.0
        with costs.measure(1, 2):
            clock.now = 3.0
        clock.now = 4.0
    sessions = {step.tokens: step.sessions for kind in costs._kinds.values() for step in kind.latest}
    assert sessions == {2: 2.0, 1: 1.5}


def test_step_that_failed_does_not_count_as_running_any_more() -> None:
    clock = Clock()
    costs = StepCosts(clock=clock)
    with pytest.raises(ConnectionError), costs.measure(1, 1):
        raise ConnectionError
    with costs.measure(1, 1):
        clock.now = 1.0
    [kind] = costs._kinds.values()
    assert kind.latest[0].sessions == 1.0


def test_steps_of_many_threads_are_all_noted() -> None:
    costs = StepCosts()

    def work() -> None:
        for _ in range(200):
            with costs.measure(1, 1):
                costs.seconds(1, 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert costs._noted == 1600
    assert costs._running == 0


# ---- work in turn


@given(latency=st.floats(0, 10), work=st.floats(0, 10), others=st.floats(0, 100))
def test_work_of_others_costs_nothing_at_least_and_all_of_it_at_most(
    latency: float, work: float, others: float
) -> None:
    seconds = contended(latency, work, work + others)
    assert max(latency + work, work + others) - 1e-6 <= seconds <= latency + work + others + 1e-6


@pytest.mark.parametrize("work", [0.0, 1.0])
def test_without_latency_all_work_is_waited_for(work: float) -> None:
    assert contended(0.0, work, 5.0) == pytest.approx(5.0)


def test_one_session_alone_takes_latency_and_work() -> None:
    assert contended(3.0, 2.0, 2.0) == pytest.approx(5.0)
