"""How others join a server that runs, and how a program uses its swarm."""

from __future__ import annotations

import ipaddress
import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.cli.servers.server_options import Order

_MODEL_FOLDER = "MODEL_FOLDER"


@dataclass(frozen=True)
class Connection:
    """Where a server that runs can be reached, and what it serves.

    Attributes:
        order: What the server was started for.
        peer_id: The server's name in the swarm.
        addresses: Its addresses, those first that most others can reach.
    """

    order: Order
    peer_id: str
    addresses: tuple[str, ...]

    @property
    def initial_peers(self) -> list[str] | None:
        """Addresses through which others join; None in the public swarm, which needs none."""
        if self.order.initial_peers is None:
            return None
        own = [each for each in self.addresses if not _is_loopback(each)][:1] or list(self.addresses[:1])
        return list(dict.fromkeys([*own, *self.order.initial_peers]))

    @property
    def other_addresses(self) -> list[str]:
        """Addresses of this server that are not in `initial_peers`; those of this machine alone are left out."""
        return [each for each in self.addresses if each not in (self.initial_peers or ()) and not _is_loopback(each)]

    @property
    def is_on_this_machine_alone(self) -> bool:
        """Whether other machines cannot reach the server."""
        return bool(self.addresses) and all(map(_is_loopback, self.addresses))

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments with which `Petals` and `ChatPetals` use the swarm."""
        named = {"model": self.order.model, "initial_peers": self.initial_peers, "dht_prefix": self.order.dht_prefix}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def join(self) -> str:
        """The command with which another machine joins."""
        return shlex.join(["langchain-petals", "server", "run", *self._model_words, *self._options])

    @property
    def status(self) -> str:
        """The command that shows the swarm."""
        return shlex.join(["langchain-petals", "status", self.order.model, *self._options])

    @property
    def python(self) -> list[str]:
        """Lines of a program that uses the swarm."""
        values = {name: json.dumps(value, ensure_ascii=False) for name, value in self.arguments.items()}
        lines = ["from langchain_petals import Petals"]
        if self.order.is_bundled:
            lines.append("from langchain_petals.swarm import BUNDLED_MODEL")
            values["model"] = "BUNDLED_MODEL"
        if self.initial_peers:
            listed = "".join(f'        "{peer}",\n' for peer in self.initial_peers)
            values["initial_peers"] = f"[\n{listed}    ]"
        return [*lines, "", "llm = Petals(  # or ChatPetals", *(f"    {name}={values[name]}," for name in values), ")"]

    @property
    def exports(self) -> list[str]:
        """Lines for a shell; a program that it starts then uses the swarm without arguments."""
        values = {"MODEL": self.order.model, "INITIAL_PEERS": ",".join(self.initial_peers or ())}
        if self.order.dht_prefix is not None:
            values["DHT_PREFIX"] = self.order.dht_prefix
        return [f"export LANGCHAIN_PETALS_{name}={shlex.quote(value)}" for name, value in values.items() if value]

    @property
    def _model_words(self) -> list[str]:
        if self.order.is_bundled:
            return []
        return [self.order.model if self.order.dht_prefix is None or "/" not in self.order.model[:1] else _MODEL_FOLDER]

    @property
    def _options(self) -> list[str]:
        peers = [word for peer in self.initial_peers or () for word in ("--initial-peers", peer)]
        is_default = self.order.dht_prefix is None or self.order.is_bundled
        return peers + ([] if is_default else ["--dht-prefix", str(self.order.dht_prefix)])


def best_first(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return a server's addresses: those first that most others can reach; without those that nobody can use."""
    ranked = {each: _rank(each) for each in dict.fromkeys(addresses)}
    return tuple(sorted((each for each in ranked if ranked[each] is not None), key=lambda each: ranked[each] or 0))


def _rank(address: str) -> int | None:
    host = _host(address)
    if host is None:
        return 2 if "p2p-circuit" not in address else 4  # a name, which somebody has chosen to announce
    if host.is_link_local or host.is_unspecified:
        return None
    if host.is_loopback:
        return 6
    return (0 if host.is_global else 1) + (0 if host.version == 4 else 2)  # noqa: PLR2004 - IPv4


def _is_loopback(address: str) -> bool:
    host = _host(address)
    return host is not None and host.is_loopback


def _host(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that an address begins with."""
    parts = address.split("/")
    if len(parts) < 3 or parts[1] not in ("ip4", "ip6"):  # noqa: PLR2004 - "", protocol, host
        return None
    try:
        return ipaddress.ip_address(parts[2])
    except ValueError:
        return None
