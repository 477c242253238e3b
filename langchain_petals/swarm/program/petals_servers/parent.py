"""Processes that end when their parent has ended.

hivemind 1.1.12 and petals rely on the parent's exit handlers. After a SIGKILL of the parent, a `hivemind.DHT` with its
p2pd, and a server's connection handlers, would run for ever.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECK_SECONDS = 1.0


def end_with_parent(process_class: Any) -> None:
    """Make the processes of a class end, with their child processes, when their parent has ended."""
    run = process_class.run

    @functools.wraps(run)
    def run_and_watch(process: Any) -> None:
        watch_parent(os.getppid())
        run(process)

    process_class.run = run_and_watch


def watch_parent(parent: int, tidy_up: Callable[[], object] = bool) -> None:
    """Start a thread that ends this process and its children when `parent` is no longer its parent.

    Read the parent's id early: a parent that dies before this call is then noticed, too. `tidy_up` is called when the
    children have been killed.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_CHECK_SECONDS)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                child.kill()
        tidy_up()
        os._exit(1)

    threading.Thread(target=watch, name="petals-watch-parent", daemon=True).start()
