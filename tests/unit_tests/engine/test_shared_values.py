"""A value that several threads ask for is made once; after an error it is made again."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from langchain_petals.engine.shared_values import SharedValues


class Noticing(dict[str, "Future[str]"]):
    """Values that are being made; counts the threads that look for one."""

    def __init__(self) -> None:
        self.looked = threading.Semaphore(0)

    def get(self, key: str, default: Any = None) -> Any:
        self.looked.release()
        return super().get(key, default)


def test_a_value_is_made_once_and_kept() -> None:
    values: SharedValues[str, object] = SharedValues(kept=2)
    first = values.get("a", object)
    assert values.get("a", lambda: pytest.fail("made again")) is first
    assert values.get("b", object) is not first


def test_least_recently_used_value_is_dropped() -> None:
    values: SharedValues[str, str] = SharedValues(kept=2)
    for key in ("a", "b", "a", "c"):
        values.get(key, functools.partial(str, key))
    assert len(values) == 2
    assert values.get("a", lambda: pytest.fail("was asked for after b")) == "a"
    assert values.get("b", lambda: "made again") == "made again"


def test_different_values_are_made_at_the_same_time() -> None:
    values: SharedValues[str, int] = SharedValues(kept=8)
    together = threading.Barrier(3)
    with ThreadPoolExecutor(3) as threads:
        made = list(threads.map(lambda key: values.get(key, lambda: together.wait(30)), "abc"))
    assert sorted(made) == [0, 1, 2]


def test_error_is_raised_in_all_waiting_threads_and_the_next_one_tries_again() -> None:
    values: SharedValues[str, str] = SharedValues(kept=8)
    values._under_way = under_way = Noticing()
    fail, tried = threading.Event(), list[None]()

    def make() -> str:
        tried.append(None)
        fail.wait(30)
        raise ValueError

    def ask() -> Exception | None:
        try:
            values.get("a", make)
        except Exception as raised:  # noqa: BLE001 - it is what the test is about
            return raised
        return None

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        for _ in asked:
            assert under_way.looked.acquire(timeout=30)
        fail.set()
        assert [type(each.result()) for each in asked] == [ValueError] * 4
    assert len(tried) == 1
    assert len(values) == 0
    assert values.get("a", lambda: "at last") == "at last"


def test_an_interrupt_ends_only_the_thread_that_it_hits() -> None:
    values: SharedValues[str, str] = SharedValues(kept=8)
    values._under_way = under_way = Noticing()
    interrupt = threading.Event()

    def make() -> str:
        interrupt.wait(30)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(4) as threads:
        interrupted = threads.submit(values.get, "a", make)
        assert under_way.looked.acquire(timeout=30)
        others = [threads.submit(values.get, "a", lambda: "at last") for _ in range(3)]
        for _ in others:
            assert under_way.looked.acquire(timeout=30)
        interrupt.set()
        assert isinstance(interrupted.exception(30), KeyboardInterrupt)
        assert [each.exception(30) or each.result() for each in others] == ["at last"] * 3
