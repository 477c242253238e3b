"""The swarms that this process has joined."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from langchain_petals.engine.network.network import Network
from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.engine.threads import call_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Networks:
    """The swarms that this process has joined; models on one swarm share its network."""

    def __init__(self) -> None:
        self._joined: SharedValues[tuple[str, ...], Network] = SharedValues()
        self._users: dict[Network, int] = {}
        self._lock = threading.Lock()
        call_in_child(self, Networks._begin_child)

    def join(self, initial_peers: Sequence[str], timeout: float) -> tuple[Network, Callable[[], None]]:
        """Return a network, and a function that gives it up: when all of its users have, the swarm is left.

        If another thread is joining the same swarm, this waits for that thread, and gets its error if it fails.

        Args:
            initial_peers: Multiaddresses of peers through which to join.
            timeout: Seconds to join.

        Raises:
            SwarmUnreachableError: No initial peer could be reached.
        """
        peers = tuple(initial_peers)
        while True:
            network = self._joined.get(peers, lambda: Network(peers, timeout), lambda known: known.is_open)
            with self._lock:
                if self._joined.peek(peers) is network:  # else its last user is leaving it
                    self._users[network] = self._users.get(network, 0) + 1
                    return network, partial(self._give_up, network)

    def _give_up(self, network: Network) -> None:
        with self._lock:
            self._users[network] = left = self._users.get(network, 1) - 1
            if left:
                return
            del self._users[network]
            self._joined.drop(network.initial_peers, network)
        network.leave()

    def _begin_child(self) -> None:
        self._users, self._lock = {}, threading.Lock()
        self._joined.take_out(lambda _: True)


shared_networks = Networks()
"""Of the whole process: one event loop and one p2pd for each swarm are enough for all models."""
