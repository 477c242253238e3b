"""What `langchain-petals doctor` looks at on a swarm: its peers, one by one, and a model."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from langchain_petals.addresses import check_initial_peers, check_prefix
from langchain_petals.cli.swarms.doctor_checks import Finding
from langchain_petals.environment import VARIABLES, connection_from_environment
from langchain_petals.errors import InvalidRequestError, PetalsError
from langchain_petals.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_petals.engine.loading import LocatedModel
    from langchain_petals.engine.network import Network

_PEER_SECONDS = 5.0
_MOST_TRIED = 32  # peers
_FAMILIES = {"ip4": socket.AF_INET, "dns4": socket.AF_INET, "ip6": socket.AF_INET6, "dns6": socket.AF_INET6}


def check_swarm(given: dict[str, Any]) -> Iterator[Finding]:
    """Look at the initial peers, join the swarm, and look for the model, if there is one.

    Args:
        given: `model`, `initial_peers` and `dht_prefix` of the command line; the environment has the others.
    """
    try:
        connection = connection_from_environment(**given)
        peers = check_initial_peers(connection["initial_peers"] or [])
        if connection["dht_prefix"] is not None:
            check_prefix(connection["dht_prefix"])
    except InvalidRequestError as error:
        yield Finding("connection", "wrong", str(error))
        return
    used = [variable for name, variable in VARIABLES.items() if name not in given and connection[name] is not None]
    if used:
        yield Finding("connection", "note", f"the environment has defaults: {', '.join(used)}")
    located: LocatedModel | None = None
    if connection["model"] is not None:
        with progress(f"Reading {connection['model']}"):
            finding, located = _check_model(connection["model"], peers, connection["dht_prefix"])
        yield finding
    yield from _check_peers(peers)
    yield from _check_joining(peers, located)


def _check_model(model: str, peers: list[str], prefix: str | None) -> tuple[Finding, LocatedModel | None]:
    from langchain_petals.engine.loading import Connection, locate_model  # noqa: PLC0415 - loads torch
    from langchain_petals.hub import key_from_environment  # noqa: PLC0415 - heavy

    try:
        found = locate_model(Connection(model, tuple(peers), prefix, key=key_from_environment()))
        tokens = found.tokenizer().backend_tokenizer.get_vocab_size()
    except PetalsError as error:
        return Finding(model, "wrong", str(error)), None
    text = f"family {found.config['model_type']}, {found.blocks} blocks, announced as {found.prefix!r}, {tokens} tokens"
    return Finding(model, "ok", text), found


def _check_peers(peers: list[str]) -> Iterator[Finding]:
    from langchain_petals.engine.loading import PUBLIC_PEERS  # noqa: PLC0415 - loads torch

    addresses: Sequence[str] = (peers or PUBLIC_PEERS)[:_MOST_TRIED]
    with progress("Trying the initial peers"), ThreadPoolExecutor(max_workers=len(addresses)) as threads:
        seen = list(threads.map(_try_peer, addresses))
    for address, (is_reached, text) in zip(addresses, seen, strict=True):
        yield Finding(address, "ok" if is_reached else "note", text)


def _check_joining(peers: list[str], model: LocatedModel | None) -> Iterator[Finding]:
    """Join the swarm: whether one of the peers speaks the protocol shows only so."""
    from langchain_petals.engine.loading import join_swarm  # noqa: PLC0415 - loads torch

    began = time.monotonic()
    try:
        with progress("Joining the swarm"):
            network, leave = join_swarm(peers)
    except PetalsError as error:
        yield Finding("swarm", "wrong", str(error))
        return
    try:
        yield Finding("swarm", "ok", f"joined in {time.monotonic() - began:.1f} s{_models(network)}")
        if model is not None:
            yield _check_blocks(network, model)
    finally:
        leave()


def _models(network: Network) -> str:
    from langchain_petals.engine.network import survey_models  # noqa: PLC0415 - loads torch

    try:
        names = [each.prefix for each in survey_models(network)]
    except PetalsError as error:
        return f"; its models are not known: {error}"
    return (
        f"; it announces {', '.join(names[:5])}{', ...' if names[5:] else ''}" if names else "; it announces no model"
    )


def _check_blocks(network: Network, model: LocatedModel) -> Finding:
    from langchain_petals.cli.swarms.status_verdict import gaps_text  # noqa: PLC0415 - see the package
    from langchain_petals.engine.network import survey  # noqa: PLC0415 - loads torch

    mend = f"langchain-petals status {model.name}"
    try:
        with progress("Asking the servers"):
            missing = survey(network, model.prefix, model.blocks).missing
    except PetalsError as error:
        return Finding("blocks", "wrong", str(error))
    if missing:
        return Finding(
            "blocks", "wrong", f"no server that answers holds {gaps_text(missing)} of {model.prefix!r}", mend
        )
    return Finding("blocks", "ok", f"servers that answer hold all blocks of {model.prefix!r}")


def _try_peer(address: str) -> tuple[bool, str]:
    """Open a connection to a peer's port, and close it; return whether that worked, and what was seen."""
    parts = address.strip("/").split("/")
    if parts[2:3] != ["tcp"] or "p2p-circuit" in parts or parts[0] not in {"dns", *_FAMILIES}:
        return False, "not tried by itself: it is no plain TCP address"
    host, port, began = parts[1], int(parts[3]), time.monotonic()
    problem: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, _FAMILIES.get(parts[0], socket.AF_UNSPEC), socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter if no name can be so
        return False, f"the name {host} leads to no address: {getattr(error, 'strerror', None) or error}"
    for family, kind, protocol, _, place in found[:4]:
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.settimeout(_PEER_SECONDS)
                connection.connect(place)
        except OSError as error:
            problem = error
        else:
            return True, f"its port is open; {1000 * (time.monotonic() - began):.0f} ms"
    reason = f"no answer within {_PEER_SECONDS:g} s" if isinstance(problem, TimeoutError) else str(problem)
    return False, f"its port could not be reached: {reason}"
