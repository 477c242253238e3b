"""A system without free threads."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def out_of_threads(*, named: str = "", but: int = 0, error: type[Exception] = RuntimeError) -> Iterator[None]:
    """Make `threading.Thread.start` fail inside the block.

    Args:
        named: Only threads whose names begin with this fail.
        but: How many of them start before the others fail.
        error: What `threading.Thread.start` raises.
    """
    start, left, lock = threading.Thread.start, [but], threading.Lock()

    def refuse(thread: threading.Thread) -> None:
        with lock:
            left[0] -= thread.name.startswith(named)
            refused = thread.name.startswith(named) and left[0] < 0
        if refused:
            msg = "can't start new thread"
            raise error(msg)
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        yield
