"""The engines of this process: every object that uses a model shares the one that is loaded."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from langchain_petals.engine.engine import Engine
from langchain_petals.engine.loading import client_over, load_client
from langchain_petals.engine.shared_values import SharedValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading import Connection
    from langchain_petals.tokenizer import Tokenizer


class Engines:
    """Engines by their connections, or by the model that was given to them.

    An engine with a connection lives until its swarm is released or the process ends: loading takes seconds, and the
    next object should find it loaded. An engine over a given model lives while an object uses it.
    """

    def __init__(self) -> None:
        self._connected: SharedValues[Connection, Engine] = SharedValues()
        self._given: weakref.WeakValueDictionary[tuple[int, int], Engine] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def connect(self, connection: Connection) -> Engine:
        """Return the engine of a connection; the first call loads it, see `load_client`, others wait for it."""
        return self._connected.get(connection, lambda: Engine(load_client(connection)))

    def over(self, model: CausalModel, tokenizer: Tokenizer) -> Engine:
        """Return the engine over a loaded model and its tokenizer."""
        with self._lock:
            key = id(model), id(tokenizer)  # unique while the engine refers to them
            engine = self._given.get(key)
            if engine is None:
                engine = self._given[key] = Engine(client_over(model, tokenizer))
            return engine

    def release(self, initial_peers: Sequence[str], model: str | None = None) -> None:
        """Shut down and forget the engines that joined a swarm through these peers: all, or those of one model."""
        peers = tuple(initial_peers)
        for engine in self._connected.take_out(lambda at: at.initial_peers == peers and model in (None, at.model)):
            engine.shut_down()


engines = Engines()
"""The only instance in a process, so each swarm is joined once, and all objects find the same idle sessions.
An engine ends with `Engines.release` (`LocalSwarm` calls it), with its last user, or with the process."""
