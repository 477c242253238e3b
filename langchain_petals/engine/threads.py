"""The threads of the engine, and how they end with the program."""

from __future__ import annotations

import atexit
import functools
import threading
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_END = 5.0  # seconds that the program's end waits for running steps

# One of each per process, for the interpreter's exit. A thread leaves the set when it is garbage-collected.
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_ending = threading.Event()


def start_thread(target: Callable[..., None], *args: object) -> None:
    """Run a function on a new thread; the program's end waits for its current step only.

    Raises RuntimeError if the system has no more threads; the function will not run then.
    """
    thread = threading.Thread(target=target, args=args, name="langchain-petals-decoding", daemon=True)
    _register_end()
    _threads.add(thread)
    thread.start()  # last, so that nothing runs if this raises


@functools.cache
def _register_end() -> None:
    """Register `_end_threads` once, after the exit functions of modules that threads use; it runs before them."""
    atexit.register(_end_threads)


def program_ends() -> bool:
    """Return whether the program is ending, so that no caller waits any more."""
    return _ending.is_set()


def _end_threads() -> None:
    """Wait until the running generations have stopped: a thread inside torch would abort the ending process."""
    _ending.set()
    latest = time.monotonic() + _LONGEST_END
    for thread in list(_threads):
        if thread.is_alive():
            thread.join(max(0.0, latest - time.monotonic()))
