"""Values that threads share: each is made once, even if many threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
Value = TypeVar("Value")


class SharedValues(Generic[Key, Value]):
    """A thread-safe cache of values by keys.

    The first thread that asks for a value makes it. Threads that ask for the same value wait, others do not. An error
    is raised in all threads that waited; the next thread that asks tries again. Only the `kept` values that were used
    last are kept; None keeps all.
    """

    def __init__(self, kept: int | None = None) -> None:
        self._kept = kept
        self._done: OrderedDict[Key, Value] = OrderedDict()
        self._under_way: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._done)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """Return the value of a key; `make` makes it, here or in another thread, and must not ask for the same key."""
        with self._lock:
            if key in self._done:
                self._done.move_to_end(key)
                return self._done[key]
            future = self._under_way.get(key)
            if future is None:
                mine = self._under_way[key] = Future()
        if future is not None:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._under_way[key]
            self._done[key] = value
            while self._kept is not None and len(self._done) > self._kept:
                self._done.popitem(last=False)
        mine.set_result(value)
        return value

    def take_out(self, is_wanted: Callable[[Key], bool]) -> list[Value]:
        """Remove the values whose keys are wanted, and return them."""
        with self._lock:
            return [self._done.pop(key) for key in list(self._done) if is_wanted(key)]
