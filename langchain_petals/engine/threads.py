"""The threads on which generations run, and their end with the program."""

from __future__ import annotations

import atexit
import functools
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_END = 5.0  # seconds that the program's end waits for steps that are under way

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_ending = threading.Event()


def start_thread(target: Callable[..., None], *args: object) -> None:
    """Run a function on a thread of its own; the program does not wait for its end, other than for a step's.

    Raises:
        RuntimeError: The system has no more threads; the function will not run.
    """
    thread = threading.Thread(target=target, args=args, name="langchain-petals-decoding", daemon=True)
    _await_end()
    _threads.add(thread)
    thread.start()  # last: where this raises, nothing runs


@functools.cache
def _await_end() -> None:
    """Be told of the program's end, before those modules are with which the threads work: they came earlier."""
    atexit.register(_end_threads)


def program_ends() -> bool:
    """Tell whether the program is about to end, so that nobody waits for anything any more."""
    return _ending.is_set()


def _end_threads() -> None:
    """Wait until the generations that still run have noticed the end.

    A thread that were inside torch when the interpreter goes away would abort the process.
    """
    _ending.set()
    latest = time.monotonic() + _LONGEST_END
    for thread in list(_threads):
        if thread.is_alive():
            thread.join(max(0.0, latest - time.monotonic()))
