"""The threads of the engine: how they end with the program, and what becomes of them in the child of a fork."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Owner = TypeVar("_Owner")

NO_THREAD = (RuntimeError, MemoryError)
"""What starting a thread raises when the system has no more threads or no memory."""

_LONGEST_END = 5.0  # seconds that the program's end waits for running steps

# one of each per process, for the interpreter's exit
_loading: set[threading.Event] = set()
_ending = threading.Event()
_at_end: list[Callable[[], object]] = []

# in the order in which the objects were made
_in_child: weakref.WeakKeyDictionary[object, Callable[[Any], object]] = weakref.WeakKeyDictionary()
_first_process = os.getpid()


class _Awaited(threading.Thread):
    """A thread whose current step the program's end waits for."""


def start_thread(target: Callable[..., None], *args: object) -> None:
    """Run a function on a new thread; the program's end waits for its current step only.

    Raises one of `NO_THREAD` if the system has no more threads; the function will not run then.
    """
    thread = _Awaited(target=target, args=args, name="langchain-petals-decoding", daemon=True)
    _register_end()
    thread.start()  # last, so that nothing runs if this raises


def call_at_end(function: Callable[[], object]) -> None:
    """Call a function when the program ends, before its threads are waited for; it should let them end."""
    _at_end.append(function)
    _register_end()


def call_in_child(owner: _Owner, method: Callable[[_Owner], object]) -> None:
    """Call a method of an object in the child of each fork, while the object lives; one method for each object.

    A child has only the thread that forked. Locks that other threads held stay locked there, and sockets are shared
    with the parent.
    """
    _in_child[owner] = method


def load(work: Callable[[], _Result]) -> _Result:
    """Do work that a call needs first and that computes with torch; return its result.

    The program's end waits for it, as for the steps of threads. A daemon thread whose work fails because of that stops
    for good, so that it prints no error.

    In the child of a fork, it runs on a thread of its own: GNU's OpenMP keeps helper threads for each thread that has
    computed. The thread that forked would wait for its own for ever, since they are not in the child.
    """
    if os.getpid() == _first_process:
        return _awaited_at_end(work)
    result: Future[_Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised below
            result.set_exception(error)

    start_thread(run)
    return _awaited_at_end(result.result)


def _awaited_at_end(work: Callable[[], _Result]) -> _Result:
    _register_end()
    done = threading.Event()
    _loading.add(done)
    try:
        return work()
    finally:
        _loading.discard(done)
        done.set()
        if _ending.is_set() and threading.current_thread().daemon:
            threading.Event().wait()


def program_ends() -> bool:
    """Return whether the program is ending, so that no caller waits any more."""
    return _ending.is_set()


@functools.cache
def _register_end() -> None:
    """Register `_end_threads` once, after the exit functions of modules that threads use; it runs before them."""
    atexit.register(_end_threads)


def _end_threads() -> None:
    """Wait until the running generations have stopped: a thread inside torch would abort the ending process."""
    _ending.set()
    for function in _at_end:
        try:
            function()
        except Exception:  # the other functions run all the same, and the threads are waited for
            logger.exception("An error while the program ends")
    latest = time.monotonic() + _LONGEST_END
    for done in list(_loading):
        done.wait(max(0.0, latest - time.monotonic()))
    for thread in threading.enumerate():
        if isinstance(thread, _Awaited) and thread.is_alive():
            thread.join(max(0.0, latest - time.monotonic()))


def _begin_child() -> None:
    _loading.clear()
    for each, method in list(_in_child.items()):
        method(each)


os.register_at_fork(after_in_child=_begin_child)
