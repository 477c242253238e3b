"""Requests that arrive together and fit run as a group."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from out_of_threads import out_of_threads

from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request
from langchain_petals.engine.scheduler import LENGTH_SPREAD, Scheduler, _compatible
from langchain_petals.engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LONG_WINDOW = Settings(batch_window=60_000)
NO_WINDOW = Settings(batch_window=0)


def asked(length: int = 1, new_tokens: int = 256) -> Generation:
    return Generation(Request([1] * length, new_tokens))


class Runner:
    """Replaces the engine's function that runs a group; records the groups."""

    def __init__(self) -> None:
        self.groups: queue.SimpleQueue[tuple[list[Generation], Settings]] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []

    def __call__(self, group: list[Generation], settings: Settings) -> None:
        self.threads.append(threading.current_thread())
        self.groups.put((group, settings))

    def next(self) -> tuple[list[Generation], Settings]:
        return self.groups.get(timeout=10)


# ---- when


def test_single_request_runs_without_a_companion() -> None:
    run = Runner()
    generation = asked()
    Scheduler(run).put([generation], Settings())
    assert run.next() == ([generation], Settings())


def test_requests_of_one_call_run_together_even_without_a_window() -> None:
    run = Runner()
    generations = [asked() for _ in range(5)]
    Scheduler(run).put(generations, NO_WINDOW)
    assert run.next() == (generations, NO_WINDOW)


def test_requests_that_come_within_the_window_run_together() -> None:
    settings = Settings(batch_window=60_000, max_batch_size=3)
    run = Runner()
    scheduler = Scheduler(run)
    generations = [asked() for _ in range(3)]
    for generation in generations:
        scheduler.put([generation], settings)
    assert run.next() == (generations, settings)


def test_full_batch_does_not_wait_for_the_window_to_end() -> None:
    settings = Settings(batch_window=60_000, max_batch_size=4)
    run = Runner()
    generations = [asked() for _ in range(6)]
    Scheduler(run).put(generations, settings)
    groups = [run.next()[0], run.next()[0]]
    assert sorted(map(len, groups)) == [2, 4]
    assert {id(each) for group in groups for each in group} == {id(each) for each in generations}


class ScriptedCondition:
    """Replaces a condition: what happens during each wait is set before."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = iter(steps)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def notify(self) -> None:
        pass

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:  # noqa: ARG002 - the interface
        next(self._steps)()
        return predicate()


def test_requests_wait_for_one_that_is_being_prepared() -> None:
    run, settings = Runner(), LONG_WINDOW
    scheduler = Scheduler(run)
    scheduler._collecting = True
    first, second, third = asked(), asked(), asked()
    being_made = contextlib.ExitStack()

    def put(generation: Generation) -> None:
        scheduler.put([generation], settings)

    def finish() -> None:
        put(second)
        being_made.close()

    nothing_comes: list[Callable[[], object]] = [lambda: None] * 3
    scheduler._arrived = ScriptedCondition(*nothing_comes, finish, lambda: None)  # type: ignore[assignment]
    being_made.enter_context(scheduler.expecting())
    put(first)
    scheduler._collect(60, 32)
    assert run.next()[0] == [first, second]
    scheduler._arrived = ScriptedCondition(lambda: None)  # type: ignore[assignment]
    scheduler._collecting = True
    put(third)
    scheduler._collect(60, 32)
    assert run.next()[0] == [third]


def test_requests_of_many_threads_are_all_served() -> None:
    settings = Settings(batch_window=60_000, max_batch_size=16)
    run = Runner()
    scheduler = Scheduler(run)
    generations = [asked() for _ in range(16)]
    threads = [threading.Thread(target=scheduler.put, args=([each], settings)) for each in generations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    group, _ = run.next()
    assert {id(each) for each in group} == {id(each) for each in generations}


def test_requests_after_the_first_group_are_served() -> None:
    run = Runner()
    scheduler = Scheduler(run)
    for _ in range(20):
        generation = asked()
        scheduler.put([generation], NO_WINDOW)
        assert run.next()[0] == [generation]


def test_each_group_runs_on_its_own_thread() -> None:
    """The caller does not wait, and no group waits for the end of another."""
    run = Runner()
    Scheduler(run).put([asked(1), asked(1000)], NO_WINDOW)
    run.next()
    run.next()
    assert len({id(thread) for thread in run.threads}) == 2
    assert threading.current_thread() not in run.threads


# ---- when something fails


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_lack_of_threads_fails_a_call_and_not_the_next_one(error: type[Exception]) -> None:
    run = Runner()
    scheduler = Scheduler(run)
    with out_of_threads(error=error), pytest.raises(error, match="new thread"):
        scheduler.put([asked()], NO_WINDOW)
    generation = asked()
    scheduler.put([generation], NO_WINDOW)
    assert run.next()[0] == [generation]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
@pytest.mark.parametrize("threads", [1, 2])
def test_groups_without_a_thread_run_one_after_the_other(threads: int, error: type[Exception]) -> None:
    """The first thread collects, and runs the last group and those that got no thread."""
    run = Runner()
    scheduler = Scheduler(run)
    generations = [asked(length) for length in (1, 100, 200)]
    with out_of_threads(but=threads, error=error):
        scheduler.put(generations, NO_WINDOW)
        served = {id(run.next()[0][0]) for _ in generations}
    assert served == {id(each) for each in generations}
    assert len({id(thread) for thread in run.threads}) == threads
    generation = asked()
    scheduler.put([generation], NO_WINDOW)
    assert run.next()[0] == [generation]


@pytest.mark.parametrize("broken", [1, 100])
def test_only_the_group_whose_run_raises_fails(broken: int) -> None:
    ran: queue.SimpleQueue[Generation] = queue.SimpleQueue()

    def run(group: list[Generation], _: Settings) -> None:
        if len(group[0].request.prompt_ids) == broken:
            msg = "no memory for this one"
            raise MemoryError(msg)
        ran.put(group[0])

    scheduler = Scheduler(run)
    generations = {length: asked(length) for length in (1, 100)}
    scheduler.put([*generations.values()], NO_WINDOW)
    with pytest.raises(MemoryError, match="this one"):
        list(generations.pop(broken))
    assert ran.get(timeout=10) in generations.values()
    generation = asked(50)
    scheduler.put([generation], NO_WINDOW)
    assert ran.get(timeout=10) is generation


def test_requests_that_cannot_be_grouped_fail_and_the_next_is_served() -> None:
    class Unmeasurable(list[int]):
        def __len__(self) -> int:
            raise MemoryError

        def __bool__(self) -> bool:
            return True

    run = Runner()
    scheduler = Scheduler(run)
    generations = [asked(), Generation(Request(Unmeasurable(), 1))]
    scheduler.put(generations, NO_WINDOW)
    for each in generations:
        with pytest.raises(MemoryError):
            list(each)
    generation = asked()
    scheduler.put([generation], NO_WINDOW)
    assert run.next()[0] == [generation]


# ---- groups


def grouped(waiting: Sequence[tuple[Generation, Settings]]) -> list[list[int]]:
    return [[len(each.request.prompt_ids) for each in group] for _, group in _compatible(waiting)]


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([5], [[5]]),
        ([9, 3, 5], [[3, 5, 9]]),
        ([1, 1 + LENGTH_SPREAD], [[1, 1 + LENGTH_SPREAD]]),
        ([1, 2 + LENGTH_SPREAD], [[1], [2 + LENGTH_SPREAD]]),
        ([1, 30, 60, 90], [[1, 30], [60, 90]]),
    ],
)
def test_prompts_of_similar_length_share_a_session(lengths: list[int], groups: list[list[int]]) -> None:
    assert grouped([(asked(length), NO_WINDOW) for length in lengths]) == groups


@pytest.mark.parametrize(
    ("requests", "groups"),
    [
        ([(10, 1), (11, 3)], [[10], [11]]),
        ([(10, 1), (11, 4)], [[10, 11]]),
        ([(10, 64), (26, 64)], [[10, 26]]),
        ([(10, 64), (27, 64)], [[10], [27]]),
        ([(10, 64), (10, 1), (26, 64)], [[10, 10, 26]]),
    ],
)
def test_longer_prompt_may_cost_a_quarter_of_the_steps_at_most(
    requests: list[tuple[int, int]], groups: list[list[int]]
) -> None:
    assert grouped([(asked(*request), NO_WINDOW) for request in requests]) == groups


def test_requests_with_different_settings_do_not_share_a_session() -> None:
    patient, hasty = Settings(step_timeout=100), Settings(step_timeout=1)
    generations = [asked() for _ in range(3)]
    found = _compatible(
        [(generations[0], patient), (generations[1], hasty), (generations[2], Settings(step_timeout=100))]
    )
    assert found == [(patient, [generations[0], generations[2]]), (hasty, [generations[1]])]


def test_requests_with_different_options_share_a_session() -> None:
    requests = [Request([1], 1), Request([1], 50, stop=["x"]), Request([1], 5, timeout=3, top_logprobs=1)]
    generations = [Generation(request) for request in requests]
    assert _compatible([(each, NO_WINDOW) for each in generations]) == [(NO_WINDOW, generations)]


def test_what_divides_requests_of_equal_settings_decides_who_shares_a_session() -> None:
    first, second = [Settings(step_timeout=seconds) for seconds in (1, 2)]
    asked_for: list[tuple[Settings, int]] = []

    def pairs(generations: list[Generation], settings: Settings) -> list[list[Generation]]:
        asked_for.append((settings, len(generations)))
        return [generations[start : start + 2] for start in range(0, len(generations), 2)]

    generations = [asked(length) for length in (1, 500, 1, 500, 1)]
    found = _compatible(list(zip(generations, [first, first, second, first, second], strict=True)), pairs)
    assert asked_for == [(first, 3), (second, 2)]
    assert found == [
        (first, [generations[0], generations[1]]),
        (first, [generations[3]]),
        (second, [generations[2], generations[4]]),
    ]


@given(st.lists(st.tuples(st.integers(1, 300), st.sampled_from([1, 2, 3])), min_size=1, max_size=30))
def test_requests_of_different_settings_never_share_a_session_whatever_divides_them(
    requests: list[tuple[int, float]],
) -> None:
    waiting = [(asked(length), Settings(step_timeout=seconds)) for length, seconds in requests]
    settings_of = {id(generation): settings for generation, settings in waiting}
    for found in (_compatible(waiting), _compatible(waiting, lambda generations, _: [generations])):
        assert sorted(id(each) for _, group in found for each in group) == sorted(settings_of)
        assert all(settings_of[id(each)] == settings for settings, group in found for each in group)


def test_requests_that_cannot_be_divided_fail_and_the_next_is_served() -> None:
    def divide(generations: list[Generation], _: Settings) -> None:
        if len(generations) > 1:
            raise MemoryError

    run = Runner()
    scheduler = Scheduler(run, divide)
    generations = [asked(), asked()]
    scheduler.put(generations, NO_WINDOW)
    for each in generations:
        with pytest.raises(MemoryError):
            list(each)
    generation = asked()
    scheduler.put([generation], NO_WINDOW)
    assert run.next()[0] == [generation]


@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=60), most=st.integers(1, 20))
def test_every_request_is_in_one_group_within_the_limits(lengths: list[int], most: int) -> None:
    settings = Settings(max_batch_size=most)
    groups = grouped([(asked(length), settings) for length in lengths])
    assert sorted(length for group in groups for length in group) == sorted(lengths)
    for group in groups:
        assert 1 <= len(group) <= most
        assert max(group) - min(group) <= LENGTH_SPREAD
