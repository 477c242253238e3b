"""The engines of this process: every object that uses a model shares the one that is loaded."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from langchain_petals.engine.engine import Engine
from langchain_petals.engine.loading import client_over, load_client
from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.engine.threads import load, program_ends, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading import Client, Connection
    from langchain_petals.tokenizer import Tokenizer


class Engines:
    """Engines by their connections, or by the model that was given to them.

    An engine with a connection lives until its swarm is released or the process ends: loading takes seconds, and the
    next object should find it loaded. An engine over a given model lives while an object uses it; then its swarm, if it
    has one, is left.

    An engine that is not open any more, since its swarm was left or its process forked, is replaced on next use by one
    that has joined the swarm anew; what was loaded is used again.
    """

    def __init__(self) -> None:
        self._connected: SharedValues[Connection, Engine] = SharedValues()
        self._given: weakref.WeakValueDictionary[tuple[int, int], Engine] = weakref.WeakValueDictionary()
        self._opening: SharedValues[tuple[int, int], Engine] = SharedValues(kept=0)

    def connect(self, connection: Connection) -> Engine:
        """Return the engine of a connection; the first call loads it, see `load_client`, others wait for it."""

        def make() -> Engine:
            return _engine_after(self._connected.peek(connection), lambda: load_client(connection))

        return self._connected.get(connection, lambda: load(make), _is_open)

    def over(self, model: CausalModel, tokenizer: Tokenizer) -> Engine:
        """Return the engine over a loaded model and its tokenizer."""
        key = id(model), id(tokenizer)

        def make() -> Engine:
            former = self._given.get(key)
            if former is not None and former.is_open:
                return former
            engine = self._given[key] = _engine_after(former, lambda: client_over(model, tokenizer))
            # This also keeps the model and the tokenizer: no others can have their ids while the engine lives.
            weakref.finalize(engine, _shut_down, engine.client, model, tokenizer).atexit = False
            return engine

        return self._opening.get(key, lambda: load(make))

    def release(self, initial_peers: Sequence[str], model: str | None = None) -> None:
        """Shut down and forget the engines that joined a swarm through these peers: all, or those of one model."""
        peers = tuple(initial_peers)
        for engine in self._connected.take_out(lambda at: at.initial_peers == peers and model in (None, at.model)):
            engine.shut_down()


def _engine_after(former: Engine | None, load_anew: Callable[[], Client]) -> Engine:
    """Return an engine that takes the place of one that is not open; without one, its client is loaded."""
    if former is None:
        return Engine(load_anew())
    engine = Engine(former.client.rejoined())
    former.shut_down()  # its p2pd may have died; the thread and the event loop of that network end with its last user
    return engine


def _shut_down(client: Client, *_: object) -> None:
    """Shut down the client of an engine that was garbage-collected.

    A new thread does it: the collector may run on the thread of the client's network, which would wait for itself.
    """
    if not program_ends():  # else all networks are left
        start_thread(client.shut_down)


def _is_open(engine: Engine) -> bool:
    return engine.is_open


engines = Engines()
"""The only instance in a process, so each swarm is joined once, and all objects find the same idle sessions.
An engine ends with `Engines.release` (`LocalSwarm` calls it), with its last user, or with the process."""
