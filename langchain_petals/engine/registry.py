"""The engines of this process: what is loaded once is shared by every object that uses it."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from langchain_petals.engine.engine import Engine
from langchain_petals.engine.loading import Client, load_client
from langchain_petals.engine.shared_values import SharedValues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.loading import Connection


class Engines:
    """Engines by what they are connected to, or by the model that they were given.

    An engine of a connection lives until its swarm is released, or the process ends: loading takes seconds, and the
    next object should find it. One over a given model lives as long as somebody uses it.
    """

    def __init__(self) -> None:
        self._connected: SharedValues[Connection, Engine] = SharedValues()
        self._given: weakref.WeakValueDictionary[tuple[int, int], Engine] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def connect(self, connection: Connection) -> Engine:
        """Return the engine of a connection; the first call loads it, and those that come meanwhile wait.

        Raises:
            PetalsError: See `load_client`.
        """
        return self._connected.get(connection, lambda: Engine(load_client(connection)))

    def over(self, model: Any, tokenizer: Any) -> Engine:
        """Return the engine over a model and a tokenizer that are loaded."""
        with self._lock:
            key = id(model), id(tokenizer)  # no other objects have these while the engine holds on to them
            engine = self._given.get(key)
            if engine is None:
                engine = self._given[key] = Engine(Client(model, tokenizer))
            return engine

    def release(self, initial_peers: Sequence[str], model: str | None = None) -> None:
        """Forget and disconnect the engines of a swarm.

        Args:
            initial_peers: The peers through which it was joined.
            model: Whose engines alone; None for those of all models.
        """
        peers = tuple(initial_peers)
        for engine in self._connected.take_out(
            lambda each: each.initial_peers == peers and model in (None, each.model)
        ):
            engine.shut_down()


engines = Engines()
"""Of the whole process, and not of the objects that use them: a conversation goes on in its session whichever object
asks, and a swarm is joined once."""
