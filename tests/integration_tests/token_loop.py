"""Actions between two steps of a token loop.

A test cannot act at a certain step by reading pieces: the loop does not wait for its readers, and may be at its end.
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
    """Act before some steps of the sessions that run inside the block, on the thread of the token loop.

    Args:
        actions: Functions of the session by the number of the step; the prompt is number 0. All of them must have been
            called when the block ends.
    """
    extend, steps, left = SwarmSession.extend, itertools.count(), dict(actions)

    def act_and_extend(session: SwarmSession, *args: Any, **more: Any) -> Any:
        act = left.pop(next(steps), None)
        if act is not None:
            act(session)
        return extend(session, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwarmSession, "extend", act_and_extend)
        yield
    assert not left, f"the loop ended before step {min(left)}"


@contextmanager
def held_before_step(number: int) -> Iterator[Callable[[], object]]:
    """Hold the token loop before a step until the block ends; yield a function that waits until it is held."""
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

    The servers' caches do not tell: an earlier session may still be open there when its caller has the answer.
    """
    servers = {server.peer_id: server for server in swarm.servers}
    assert session._chain is not None
    return [servers[span.server.peer_id] for span in session._chain.spans]
