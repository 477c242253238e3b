"""A model of a connection: its files read, its swarm joined."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals import hub
from langchain_petals.addresses import default_prefix, original_repository
from langchain_petals.engine.causal_model import is_distributed
from langchain_petals.engine.loading.checkpoint import Checkpoint
from langchain_petals.engine.loading.clients import LocalClient, SwarmClient
from langchain_petals.engine.loading.families import family_of, hub_prefix
from langchain_petals.engine.loading.model_config import blocks_of, dtype_of, read_config, read_generation_config
from langchain_petals.engine.loading.tokenizer_files import load_tokenizer
from langchain_petals.engine.model_parts import ModelParts
from langchain_petals.engine.network import Routes, shared_networks
from langchain_petals.errors import InvalidRequestError, ModelLoadError, SwarmUnreachableError
from langchain_petals.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading.clients import Client
    from langchain_petals.engine.loading.connection import Connection
    from langchain_petals.engine.loading.fast_tokenizer import FastTokenizer
    from langchain_petals.engine.model_parts import Family
    from langchain_petals.engine.network import Network
    from langchain_petals.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 15.0

PUBLIC_PEERS = (
    "/dns/bootstrap1.petals.dev/tcp/31337/p2p/QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY",
    "/dns/bootstrap2.petals.dev/tcp/31338/p2p/QmQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5",
    "/dns6/bootstrap1.petals.dev/tcp/31337/p2p/QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY",
    "/dns6/bootstrap2.petals.dev/tcp/31338/p2p/QmQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5",
    "/ip4/159.89.214.152/tcp/31337/p2p/QmedTaZXmULqwspJXz44SsPZyTNKxhnnFvYRajfH7MGhCY",
    "/ip4/159.203.156.48/tcp/31338/p2p/QmQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5",
)
"""Peers of the public swarm, as petals 2.2.0.post1 has them (read in November 2026)."""

# The commits that petals 2.2 reads in place of the main branch: newer ones have other code and names.
_PINNED = {
    "tiiuae/falcon-40b": "f1ba7d328c06aa6fbb4a8afd3c756f46d7e6b232",
    "tiiuae/falcon-40b-instruct": "7475ff8cfc36ed9a962b658ae3c33391566a85a5",
    "tiiuae/falcon-7b": "4e2d06f0a7c6370ebabbc30c6f59377ae8f73d76",
    "tiiuae/falcon-7b-instruct": "f8dac3fff96d5debd43edf56fb4e1abcfffbef28",
}


@dataclass(frozen=True)
class LocatedModel:
    """A model whose config has been read.

    Attributes:
        name: Folder or hub name.
        repository: Its files.
        config: What its config.json holds.
        family: Its family.
        prefix: The name under which servers announce its blocks.
    """

    name: str
    repository: hub.Repository
    config: dict[str, Any]
    family: Family
    prefix: str

    @property
    def blocks(self) -> int:
        """Number of its blocks."""
        return blocks_of(self.config, self.family)

    def tokenizer(self) -> FastTokenizer:
        """Return its tokenizer, read from its files.

        Raises:
            ModelLoadError: The files could not be read; the subclass tells why.
        """
        return load_tokenizer(self.repository, self.config)


def locate_model(connection: Connection) -> LocatedModel:
    """Read the config of a connection's model; nothing else of it is read.

    Raises:
        InvalidRequestError: The model's name is impossible.
        ModelLoadError: The config could not be read; the subclass tells why.
        UnsupportedModelError: The model's family is not known.
    """
    name = original_repository(connection.model)
    repository = hub.Repository(
        name,
        revision=connection.revision or _PINNED.get(name),
        cache_dir=connection.cache_dir,
        local_files_only=connection.local_files_only,
        key=connection.key,
    ).located()
    config, family = read_config(repository)
    own = default_prefix(name) if repository.is_folder else hub_prefix(name, config["model_type"])
    return LocatedModel(name, repository, config, family, connection.dht_prefix or own)


def load_client(connection: Connection) -> SwarmClient:
    """Return a model's part in this process, connected to its swarm.

    Raises:
        InvalidRequestError: The device cannot be used, or the model's name is impossible.
        ModelLoadError: The files could not be read; the subclass tells why.
        UnsupportedModelError: The model's family is not known.
        SwarmUnreachableError: No initial peer could be reached.
    """
    _check_device(connection.device)
    logger.info("Loading the client part of %s", connection.model)
    name = original_repository(connection.model)
    with progress(f"Loading {name}") as say:
        model = locate_model(connection)
        generation_config = read_generation_config(model.repository)
        tokenizer = model.tokenizer()
        say(f"Reading the weights of {name}")
        read, dtype = Checkpoint(model.repository).read, dtype_of(connection.torch_dtype, model.config)
        parts = ModelParts(model.config, model.family, read, dtype=dtype, device=connection.device)
        _check_fit(tokenizer, parts, name)
        join = _joining(
            connection.initial_peers,
            model.prefix,
            parts.blocks,
            allowed=connection.allowed_servers,
            blocked=connection.blocked_servers,
            adapter=connection.active_adapter,
        )
        say("Joining the swarm")
        return SwarmClient(parts, tokenizer, join, generation_config)


def client_over(model: CausalModel, tokenizer: Tokenizer) -> Client:
    """Return the client of a model that is loaded: a plain transformers model, or petals' distributed one.

    Petals' model gives its embeddings, norm and head, and the place of its blocks: initial peers, prefix, allowed and
    blocked servers, adapter. The swarm is joined anew.

    Raises:
        UnsupportedModelError: Petals' model is of a family that is not known here.
        SwarmUnreachableError: Its initial peers could not be reached.
    """
    if not is_distributed(model):
        return LocalClient(model, tokenizer)
    config: dict[str, Any] = model.config.to_dict()
    name = str(config.get("_name_or_path") or "client")
    weights: dict[str, torch.Tensor] = {name: each.detach() for name, each in model.named_parameters()}
    parts = ModelParts(config, family_of(config, name), weights.get, device=str(model.device))
    peers = tuple(map(str, model.config.initial_peers or ()))
    join = _joining(
        () if set(peers) <= set(PUBLIC_PEERS) else peers,
        model.config.dht_prefix,
        parts.blocks,
        allowed=map(str, model.config.allowed_servers or ()),
        blocked=map(str, model.config.blocked_servers or ()),
        adapter=model.config.active_adapter,
    )
    generation_config = getattr(model, "generation_config", None)
    with progress("Joining the swarm"):
        return SwarmClient(parts, tokenizer, join, {} if generation_config is None else generation_config.to_dict())


def _joining(
    initial_peers: Sequence[str],
    prefix: str,
    blocks: int,
    *,
    allowed: Iterable[str],
    blocked: Iterable[str],
    adapter: str | None,
) -> Callable[[], tuple[Routes, Callable[[], None]]]:
    """Return a function that joins a swarm; it returns the model's routes there, and a function that leaves it."""
    peers, allowed, blocked = tuple(initial_peers), frozenset(allowed), frozenset(blocked)

    def join() -> tuple[Routes, Callable[[], None]]:
        network, leave = join_swarm(peers)
        routes = Routes(network, prefix, blocks, allowed=allowed, blocked=blocked, adapter=adapter)
        routes.read_ahead()
        return routes, leave

    return join


def join_swarm(initial_peers: Sequence[str]) -> tuple[Network, Callable[[], None]]:
    """Return a swarm's network, and a function that gives it up.

    Args:
        initial_peers: Multiaddresses of peers to join through; empty for the public swarm.

    Raises:
        SwarmUnreachableError: No initial peer could be reached.
    """
    with _explaining_the_public_swarm(initial_peers):
        return shared_networks.join(tuple(initial_peers) or PUBLIC_PEERS, _JOIN_SECONDS)


@contextlib.contextmanager
def _explaining_the_public_swarm(initial_peers: Sequence[str]) -> Iterator[None]:
    """Raise an error that fits a user who has given no `initial_peers`."""
    try:
        yield
    except SwarmUnreachableError as error:
        if initial_peers:
            raise
        msg = (
            "Petals' public swarm could not be joined: none of its initial peers can be reached. Check the internet "
            "connection, or give the initial_peers of a swarm that runs. LocalSwarm and `langchain-petals demo` start "
            "one on this machine."
        )
        raise SwarmUnreachableError(msg) from error


def _check_fit(tokenizer: FastTokenizer, parts: ModelParts, name: str) -> None:
    tokens = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    if tokens > parts.vocabulary_size:
        msg = (
            f"the tokenizer of {name!r} has {tokens} tokens, but the model's head has {parts.vocabulary_size}. Take "
            "the tokenizer that belongs to the model."
        )
        raise ModelLoadError(msg)


def _check_device(device: str) -> None:
    try:
        is_real = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without support for it
        msg = f"device={device!r} cannot be used: {str(error).splitlines()[0]}"
        raise InvalidRequestError(msg) from None
    if not is_real:
        msg = f"device={device!r} cannot be used: it holds no numbers"
        raise InvalidRequestError(msg)
