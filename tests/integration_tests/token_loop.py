"""Times at which things happen to a generation: between two steps of its token loop.

The loop does not wait for those who read what it wrote, so a reader that takes its time may find it at its end.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine.session import SwarmSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def before_step(actions: dict[int, Callable[[], object]]) -> Iterator[None]:
    """Do things before steps of the sessions that run in this context, on the thread of the token loop.

    Args:
        actions: What to do, by the number of the step: the prompt is number 0. All of it has to be done when the
            context is left.
    """
    extend, steps, left = SwarmSession.extend, itertools.count(), dict(actions)

    def act_and_extend(session: SwarmSession, ids: Any) -> Any:
        act = left.pop(next(steps), None)
        if act is not None:
            act()
        return extend(session, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwarmSession, "extend", act_and_extend)
        yield
    assert not left, f"the loop ended before step {min(left)}"


@contextmanager
def held_before_step(number: int) -> Iterator[Callable[[], object]]:
    """Hold the token loop before a step until the context is left; what is returned waits until it is there."""
    there, released = threading.Event(), threading.Event()

    def hold() -> None:
        there.set()
        released.wait()

    with before_step({number: hold}):
        try:
            yield there.wait
        finally:
            released.set()
