"""The engines of this process: every object that uses a model shares the one that is loaded."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from langchain_petals.engine.engine import Engine
from langchain_petals.engine.loading import client_over, load_client
from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.engine.threads import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading import Connection
    from langchain_petals.tokenizer import Tokenizer


class Engines:
    """Engines by their connections, or by the model that was given to them.

    An engine with a connection lives until its swarm is released or the process ends: loading takes seconds, and the
    next object should find it loaded. An engine over a given model lives while an object uses it.

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
            former = self._connected.peek(connection)
            return Engine(load_client(connection) if former is None else former.client.rejoined())

        return self._connected.get(connection, lambda: load(make), _is_open)

    def over(self, model: CausalModel, tokenizer: Tokenizer) -> Engine:
        """Return the engine over a loaded model and its tokenizer."""
        key = id(model), id(tokenizer)  # unique while the engine refers to them

        def make() -> Engine:
            engine = self._given.get(key)
            if engine is None or not engine.is_open:
                client = client_over(model, tokenizer) if engine is None else engine.client.rejoined()
                engine = self._given[key] = Engine(client)
            return engine

        return self._opening.get(key, lambda: load(make))

    def release(self, initial_peers: Sequence[str], model: str | None = None) -> None:
        """Shut down and forget the engines that joined a swarm through these peers: all, or those of one model."""
        peers = tuple(initial_peers)
        for engine in self._connected.take_out(lambda at: at.initial_peers == peers and model in (None, at.model)):
            engine.shut_down()


def _is_open(engine: Engine) -> bool:
    return engine.is_open


engines = Engines()
"""The only instance in a process, so each swarm is joined once, and all objects find the same idle sessions.
An engine ends with `Engines.release` (`LocalSwarm` calls it), with its last user, or with the process."""
