"""The swarms that this process has joined."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from langchain_petals.engine.network.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Networks:
    """The swarms that this process has joined; models on one swarm share its network."""

    def __init__(self) -> None:
        self._users: dict[Network, int] = {}
        self._lock = threading.Lock()

    def join(self, initial_peers: Sequence[str], timeout: float) -> tuple[Network, Callable[[], None]]:
        """Return a network, and what gives it up: when all of its users have, the swarm is left."""
        peers = tuple(initial_peers)
        with self._lock:
            known = (each for each in self._users if each.is_open and each.initial_peers == peers)
            network = next(known, None) or Network(peers, timeout)
            self._users[network] = self._users.get(network, 0) + 1

        def give_up() -> None:
            with self._lock:
                self._users[network] -= 1
                is_last = not self._users[network]
                if is_last:
                    del self._users[network]
            if is_last:
                network.leave()

        return network, give_up


shared_networks = Networks()
"""Of the whole process: one event loop and one p2pd for each swarm are enough for all models."""
