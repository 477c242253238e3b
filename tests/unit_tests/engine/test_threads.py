"""What becomes of objects in the child of a fork."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from forks import FORK_WARNING, in_child

from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.engine.threads import call_in_child, load

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings(FORK_WARNING)


class Counter:
    def __init__(self, counted: list[str], name: str) -> None:
        self._counted, self._name = counted, name
        call_in_child(self, Counter.count)

    def count(self) -> None:
        self._counted.append(self._name)


def test_living_objects_are_told_in_the_child_only_and_in_order() -> None:
    counted: list[str] = []
    kept = [Counter(counted, name) for name in "ab"]
    Counter(counted, "gone")
    gc.collect()

    def check() -> None:
        assert counted == ["a", "b"]

    in_child(check)
    assert not counted
    assert len(kept) == 2


def test_values_are_in_the_child_and_what_another_thread_was_making_is_made_anew() -> None:
    values: SharedValues[str, str] = SharedValues()
    values.get("made", lambda: "by the parent")
    begun, go_on = threading.Event(), threading.Event()

    def make() -> str:
        begun.set()
        go_on.wait(60)
        return "by the parent"

    def check() -> None:
        assert values.get("made", lambda: "by the child") == "by the parent"
        assert values.get("begun", lambda: "by the child") == "by the child"

    thread = threading.Thread(target=values.get, args=["begun", make])
    thread.start()
    assert begun.wait(60)
    with values._lock:
        in_child(check)
    go_on.set()
    thread.join()
    assert values.get("begun", lambda: "again") == "by the parent"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_child_can_compute_with_several_threads_after_its_parent_has() -> None:
    numbers = torch.rand(1000, 1000)
    expected = float((numbers @ numbers).sum())

    def check() -> None:
        assert load(lambda: float((numbers @ numbers).sum())) == pytest.approx(expected)

    in_child(check)


def test_errors_of_loading_are_raised_in_the_child() -> None:
    def fail() -> None:
        raise KeyError

    def check() -> None:
        with pytest.raises(KeyError):
            load(fail)

    in_child(check)
    with pytest.raises(KeyError):
        load(fail)
