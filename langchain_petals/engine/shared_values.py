"""Values that threads share: each is made once, even if many threads ask for it at the same time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from langchain_petals.engine.threads import call_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

Key = TypeVar("Key")
Value = TypeVar("Value")


class SharedValues(Generic[Key, Value]):
    """A thread-safe cache of values by keys.

    The first thread that asks for a value makes it. Threads that ask for the same value wait, others do not. An error
    is raised in all threads that waited; the next thread that asks tries again. What is no `Exception`, such as Ctrl-C,
    ends only the thread that it hits; one that waited makes the value. Only the `kept` values that were used
    last are kept; None keeps all. In the child of a fork, the values that were made are there, and what other threads
    of the parent were making is made anew.
    """

    def __init__(self, kept: int | None = None) -> None:
        self._kept = kept
        self._done: OrderedDict[Key, Value] = OrderedDict()
        self._under_way: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()
        call_in_child(self, SharedValues._begin_child)

    def _begin_child(self) -> None:
        self._under_way, self._lock = {}, threading.Lock()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._done)

    def get(self, key: Key, make: Callable[[], Value], is_current: Callable[[Value], bool] = lambda _: True) -> Value:
        """Return the value of a key.

        Args:
            key: The key.
            make: Makes the value, here or in another thread; it must not ask for the same key.
            is_current: Tells whether a value that was made before will do. If not, a new one takes its place; if
                making it fails, the old one stays where it is.
        """
        with self._lock:
            future = self._under_way.get(key)
            if future is None:
                if key in self._done and is_current(self._done[key]):
                    self._done.move_to_end(key)
                    return self._done[key]
                mine = self._under_way[key] = Future()
        if future is not None:
            error = future.exception()
            if error is None or isinstance(error, Exception):
                return future.result()
            return self.get(key, make, is_current)  # the thread that was making it was interrupted
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
            self._done.move_to_end(key)
            while self._kept is not None and len(self._done) > self._kept:
                self._done.popitem(last=False)
        mine.set_result(value)
        return value

    def peek(self, key: Key) -> Value | None:
        """Return the value of a key if it was made, current or not."""
        with self._lock:
            return self._done.get(key)

    def drop(self, key: Key, value: Value) -> None:
        """Forget a value, unless another one has taken its place."""
        with self._lock:
            if self._done.get(key) is value:
                del self._done[key]

    def take_out(self, is_wanted: Callable[[Key], bool]) -> list[Value]:
        """Remove the values whose keys are wanted, and return them."""
        with self._lock:
            return [self._done.pop(key) for key in list(self._done) if is_wanted(key)]
