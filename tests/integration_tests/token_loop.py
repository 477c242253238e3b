"""Times at which things happen to a generation: between two steps of its token loop.

The loop does not wait for those who read what it wrote, so a reader that takes its time may find it at its end.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine.sessions.session import SwarmSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_petals.swarm import LocalSwarm
    from langchain_petals.swarm.local import LocalServer


@contextmanager
def before_step(actions: dict[int, Callable[[SwarmSession], object]]) -> Iterator[None]:
    """Do things before steps of the sessions that run in this context, on the thread of the token loop.

    Args:
        actions: What to do with the session, by the number of the step: the prompt is number 0. All of it has to be
            done when the context is left.
    """
    extend, steps, left = SwarmSession.extend, itertools.count(), dict(actions)

    def act_and_extend(session: SwarmSession, ids: Any) -> Any:
        act = left.pop(next(steps), None)
        if act is not None:
            act(session)
        return extend(session, ids)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwarmSession, "extend", act_and_extend)
        yield
    assert not left, f"the loop ended before step {min(left)}"


@contextmanager
def held_before_step(number: int) -> Iterator[Callable[[], object]]:
    """Hold the token loop before a step until the context is left; what is returned waits until it is there."""
    there, released = threading.Event(), threading.Event()

    def hold(_: SwarmSession) -> None:
        there.set()
        released.wait()

    with before_step({number: hold}):
        try:
            yield there.wait
        finally:
            released.set()


def servers_of(session: SwarmSession, swarm: LocalSwarm) -> list[LocalServer]:
    """Return the servers that a session runs on, in the order of their blocks.

    The servers cannot tell: they hold cache for the session of an earlier call until it is closed, and its caller has
    the answer before that.
    """
    servers = {server.peer_id: server for server in swarm.servers}
    assert session._chain is not None
    return [servers[stream.span.peer_id.to_base58()] for stream in session._chain._streams]
