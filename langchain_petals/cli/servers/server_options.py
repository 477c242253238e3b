"""What `langchain-petals server run` makes of its options: which server it starts, and on which swarm."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_petals import hub
from langchain_petals.addresses import check_initial_peers, check_prefix, default_prefix
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import SecretStr

_OURS = {  # petals' names for what has another name here
    "--token": "set the environment variable HF_TOKEN instead, which other users cannot read",
    "--use_auth_token": "set the environment variable HF_TOKEN instead, or run `hf auth login`",
    "--converted_model_name_or_path": "name the model as the first argument",
    "--config": "write the options on the command line",
}

_ANY_PEER = "Qm" + "a" * 44


@dataclass(frozen=True)
class Order:
    """A server to start.

    Attributes:
        model: The model's folder or hub name.
        total: How many blocks the model has.
        dht_prefix: The name under which the blocks are announced; None leaves it to Petals.
        initial_peers: Addresses of the swarm to join; none starts a new swarm, and None joins the public one.
        arguments: Petals' options, as on its command line.
        key: The hub's key.
    """

    model: str
    total: int
    dht_prefix: str | None
    initial_peers: tuple[str, ...] | None
    arguments: tuple[str, ...]
    key: SecretStr | None

    @property
    def is_bundled(self) -> bool:
        """Whether the model is the one that the package contains."""
        from langchain_petals.swarm import BUNDLED_MODEL  # noqa: PLC0415 - takes a second

        return self.model == BUNDLED_MODEL


def read_order(
    words: Sequence[str],
    options: Mapping[str, str | int | None],
    *,
    initial_peers: Sequence[str] = (),
    new_swarm: bool = False,
    host: str | None = None,
    port: int | None = None,
    announce: Sequence[str] = (),
    identity_path: Path | None = None,
    blocks: str | None = None,
    dht_prefix: str | None = None,
) -> Order:
    """Return what the options ask for.

    Args:
        words: What the command line holds beside the options below: the model, if it is named, and Petals' options.
        options: Petals' options that the command knows by name; None leaves one out.
        initial_peers: Addresses of the swarm to join, some of them separated by commas.
        new_swarm: Whether to start a new swarm.
        host: The address of this machine to listen at; None listens at all.
        port: The port to listen at; None takes a free one.
        announce: Addresses under which others reach this machine: hosts, with a port or not, or multiaddresses.
        identity_path: File of the server's identity.
        blocks: A span or a number of blocks.
        dht_prefix: Name under which the blocks are announced.

    Raises:
        InvalidRequestError: Something cannot be used; says what to write instead.
        ModelLoadError: The model's config could not be read.
    """
    from langchain_petals import swarm  # noqa: PLC0415 - takes a second

    name, of_petals = _split(words)
    peers = check_initial_peers([each for given in initial_peers for each in re.split(r"[,\s]+", given) if each])
    if peers and new_swarm:
        msg = "--new-swarm starts a swarm of its own, and --initial-peers joins one: give one of the two."
        raise InvalidRequestError(msg)
    is_public = not peers and not new_swarm
    if name is None and is_public:
        msg = (
            "Without MODEL the bundled model is served, which is for private swarms: give --new-swarm or "
            "--initial-peers. To serve a model of the public swarm, name it."
        )
        raise InvalidRequestError(msg)
    model = swarm.resolve_model(swarm.BUNDLED_MODEL if name is None else name)
    is_folder = Path(model).is_dir()
    if dht_prefix is not None or is_folder:
        dht_prefix = check_prefix(default_prefix(model) if dht_prefix is None else dht_prefix)
    hosts = _host_options(host, port)
    if port:
        _check_port(host, port)
    announced = [_multiaddress(each, port) for each in announce]
    key = None if is_folder else hub.key_from_environment()
    total = swarm.blocks_and_context(model, key)[0]
    given = {
        "dht_prefix": dht_prefix,
        "identity_path": str(_identity(identity_path)) if identity_path else None,
        **_blocks(blocks, total),
        **options,
    }
    arguments = [model]
    arguments += [word for option, value in given.items() if value is not None for word in (f"--{option}", str(value))]
    arguments += hosts
    arguments += ["--announce_maddrs", *announced] if announced else []
    arguments += ["--new_swarm"] if new_swarm else ["--initial_peers", *peers] if peers else []
    return Order(model, total, dht_prefix, None if is_public else tuple(peers), (*arguments, *of_petals), key)


def _split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the model's name, and Petals' options with the names that Petals gives them."""
    name, rest = (words[0], list(words[1:])) if words and not words[0].startswith("-") else (None, list(words))
    if rest and not rest[0].startswith("-"):
        hint = "; repeat --initial-peers for each address" if rest[0].startswith("/") else ""
        msg = f"{rest[0]!r} stands neither where the model's name does, which is first, nor after an option{hint}."
        raise InvalidRequestError(msg)
    for number, word in enumerate(rest):
        if not word.startswith("--"):
            continue
        option, equals, value = word.partition("=")
        option = option.replace("-", "_").replace("__", "--", 1)
        if option in _OURS:
            msg = f"{option} cannot be given here: {_OURS[option]}."
            raise InvalidRequestError(msg)
        rest[number] = option + equals + value
    return name, rest


def _host_options(host: str | None, port: int | None) -> list[str]:
    if host is None:
        return [] if port is None else ["--port", str(port)]
    try:
        return ["--host_maddrs", f"/ip{ipaddress.ip_address(host).version}/{host}/tcp/{port or 0}"]
    except ValueError:
        msg = f"--host {host!r} is not an IP address of this machine, such as 192.168.1.20."
        raise InvalidRequestError(msg) from None


def _check_port(host: str | None, port: int) -> None:
    """Raise an error if this machine's port is taken: the daemon would say it late, and in other words."""
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "", port))
        except OSError as error:
            where = f"port {port}" if host is None else f"{host}, port {port}"
            msg = f"This machine cannot listen at {where}: {error.strerror}. Choose another --host or --port."
            raise InvalidRequestError(msg) from None


def _multiaddress(announced: str, port: int | None) -> str:
    """Return "203.0.113.7", "203.0.113.7:31337" or "home.example.org" as an address for the swarm."""
    address = announced
    if not announced.startswith("/"):
        match = re.fullmatch(r"\[(?P<v6>.+)\](:(?P<port6>\d+))?|(?P<host>[^:]+)(:(?P<port>\d+))?", announced)
        host, own = (match["v6"] or match["host"], match["port6"] or match["port"]) if match else (announced, None)
        if not (own or port):
            msg = f"--announce {announced!r} needs a port that others can reach: give --port, and forward that port."
            raise InvalidRequestError(msg)
        address = f"{_host_part(host)}/tcp/{own or port}"
    try:
        check_initial_peers([f"{address}/p2p/{_ANY_PEER}"])
    except InvalidRequestError:
        address = ""
    if not re.search(r"/(tcp|udp)/[1-9]", address):
        msg = f"--announce {announced!r} is not an address; the form is 203.0.113.7, home.example.org or HOST:PORT."
        raise InvalidRequestError(msg)
    return address


def _host_part(host: str) -> str:
    try:
        return f"/ip{ipaddress.ip_address(host).version}/{host}"
    except ValueError:
        return f"/dns/{host}"


def _identity(path: Path) -> Path:
    absolute = path.expanduser().absolute()
    if not absolute.parent.is_dir():
        msg = f"The folder of --identity-path {str(path)!r} does not exist; make it first."
        raise InvalidRequestError(msg)
    return absolute


def _blocks(blocks: str | None, total: int) -> dict[str, Any]:
    from langchain_petals import swarm  # noqa: PLC0415 - takes a second

    if blocks is None:
        return {}
    if re.fullmatch(r"[1-9]\d*", blocks) and int(blocks) <= total:
        return {"num_blocks": int(blocks)}
    try:
        return {"block_indices": swarm.span_text(swarm.parse_span(blocks, total))}
    except InvalidRequestError:
        msg = (
            f"--blocks {blocks!r} is neither a span of this model's {total} blocks, such as 0:{total}, nor how many it "
            f"should hold, 1 to {total}."
        )
        raise InvalidRequestError(msg) from None
