"""Checks of the names of peers, swarms and adapters, before they are used.

hivemind takes seconds to import, and shows a wrong address only by a daemon that does not start. So addresses are
checked here. Each check returns the name, or raises an `InvalidRequestError` with an example of a valid one.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

_PEER_EXAMPLE = "/ip4/203.0.113.7/tcp/31337/p2p/12D3KooW..."
_PEER_ID = re.compile(r"[1-9A-HJ-NP-Za-km-z]{46,60}|ba[a-z2-7]{50,70}")  # base58 multihash, or CID in base32
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_ADAPTER = re.compile(r"[\w.-]+(/[\w.-]+)?")
_DELIMITERS = ". "  # petals' UID_DELIMITER and CHAIN_DELIMITER: they join prefixes with block numbers
_PORTS = range(2**16)

_FIRST = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")
_LAST = ("p2p", "ipfs")
# The protocols that hivemind 1.1.12's daemon can dial. If a protocol has a value, it has a check: for a wrong value,
# the check returns a false value or raises ValueError.
_PROTOCOLS: dict[str, Callable[[str], object] | None] = {
    "ip4": ipaddress.IPv4Address,
    "ip6": ipaddress.IPv6Address,
    **dict.fromkeys(("dns", "dns4", "dns6", "dnsaddr", "sni"), _HOST.fullmatch),
    **dict.fromkeys(("tcp", "udp"), lambda port: port.isascii() and port.isdigit() and int(port) in _PORTS),
    **dict.fromkeys(("quic", "quic-v1", "ws", "wss", "tls", "noise", "webtransport", "p2p-circuit"), None),
    "certhash": bool,
    **dict.fromkeys(_LAST, _PEER_ID.fullmatch),  # ipfs is p2p's old name
}


def check_initial_peers(addresses: list[str], *, named: str = "initial_peers") -> list[str]:
    """Check multiaddresses through which a swarm can be joined; `named` says where they come from."""
    for address in addresses:
        if problem := _problem(address):
            form = f"{_PEER_EXAMPLE}, or /dns/name/... instead of /ip4/..."
            msg = f"{named}: {address!r} {problem}; the form is {form}"
            raise InvalidRequestError(msg)
    return addresses


def check_peer_id(field: str, peer_id: str) -> str:
    """Check a peer id, as the fields `allowed_servers` and `blocked_servers` take it."""
    if not _PEER_ID.fullmatch(peer_id):
        msg = f"{field}: {peer_id!r} is not a peer id; the form is 12D3KooW... or Qm..., without the address before it"
        raise InvalidRequestError(msg)
    return peer_id


def check_prefix(prefix: str, *, named: str = "dht_prefix") -> str:
    """Check a `dht_prefix`, which must not hold petals' delimiters; `named` says where it comes from."""
    if not prefix or not prefix.isprintable() or any(delimiter in prefix for delimiter in _DELIMITERS):
        msg = (
            f"{named}={prefix!r} must be a name without '.' and ' ', which petals uses as separators; for "
            "instance Llama-2-70b-hf"
        )
        raise InvalidRequestError(msg)
    return prefix


def default_prefix(folder: str) -> str:
    """Return the default `dht_prefix` of a model in a folder, for servers and clients: the folder's name."""
    return re.sub(r"[^\w-]", "-", Path(folder).name)


def original_repository(model: str) -> str:
    """Return the repository that petals >= 1.2 reads for `model`: `bigscience/bloom-petals` -> `bigscience/bloom`."""
    return model.removesuffix("-petals") if model.startswith("bigscience/") else model


def check_adapter(name: str) -> str:
    """Check the hub name of a LoRA adapter."""
    if not _ADAPTER.fullmatch(name):
        msg = f"active_adapter: {name!r} is not a name on the hub; the form is artek0chumak/guanaco-65b"
        raise InvalidRequestError(msg)
    return name


def _problem(address: str) -> str | None:
    """Return what is wrong with a multiaddress, as the end of a sentence about it; None if it is valid."""
    root, *parts = address.split("/")
    if root or not parts:
        return "is not a multiaddress"
    first, last, rest = parts[0], "", iter(parts)
    for last in rest:
        if last not in _PROTOCOLS:
            return f"has an unknown part {last!r}"
        if check := _PROTOCOLS[last]:
            value = next(rest, "")
            with suppress(ValueError):
                if check(value):
                    continue
            return f"has {value!r}, which is not a value of /{last}"
    if first not in _FIRST:
        return f"begins with /{first}, not with the host (/ip4, /dns, ...)"
    return None if last in _LAST else "does not end with the peer's id (/p2p/...)"
