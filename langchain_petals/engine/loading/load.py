"""A model of a connection: its files read, its swarm joined."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals import hub
from langchain_petals.addresses import default_prefix
from langchain_petals.engine.causal_model import is_distributed
from langchain_petals.engine.loading.checkpoint import Checkpoint
from langchain_petals.engine.loading.clients import LocalClient, SwarmClient
from langchain_petals.engine.loading.families import family_of, hub_prefix
from langchain_petals.engine.loading.fast_tokenizer import load_tokenizer
from langchain_petals.engine.model_parts import ModelParts
from langchain_petals.engine.network import Routes, shared_networks
from langchain_petals.errors import InvalidRequestError, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.loading.clients import Client
    from langchain_petals.engine.loading.connection import Connection
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


def load_client(connection: Connection) -> SwarmClient:
    """Return a model's part in this process, connected to its swarm.

    Raises:
        InvalidRequestError: There is no such device or type.
        ModelLoadError: The files could not be read; the subclass tells why.
        UnsupportedModelError: The model's family is not known.
        SwarmUnreachableError: No initial peer could be reached.
    """
    _check_device(connection.device)
    logger.info("Loading the client part of %s", connection.model)
    name = _original(connection.model)
    repository = hub.Repository(
        name,
        revision=connection.revision or _PINNED.get(name),
        cache_dir=connection.cache_dir,
        local_files_only=connection.local_files_only,
        key=connection.key,
    ).located()
    config = hub.read_json(repository, "config.json")
    if config is None:
        msg = f"{name!r} has no config.json"
        raise ModelLoadError(msg)
    family = family_of(config, name)
    tokenizer = load_tokenizer(repository)
    read, dtype = Checkpoint(repository).read, _dtype(connection.torch_dtype, config)
    parts = ModelParts(config, family, read, dtype=dtype, device=connection.device)
    own = default_prefix(name) if Path(name).is_dir() else hub_prefix(name, config["model_type"])

    def join() -> tuple[Routes, Callable[[], None]]:
        network, leave = shared_networks.join(connection.initial_peers or PUBLIC_PEERS, _JOIN_SECONDS)
        routes = Routes(
            network,
            connection.dht_prefix or own,
            parts.blocks,
            allowed=connection.allowed_servers,
            blocked=connection.blocked_servers,
            adapter=connection.active_adapter,
        )
        return routes, leave

    return SwarmClient(parts, tokenizer, join, hub.read_json(repository, "generation_config.json") or {})


def client_over(model: CausalModel, tokenizer: Tokenizer) -> Client:
    """Return the client of a model that is loaded: a plain transformers model, or petals' distributed one.

    Of petals' model its parts in this process are taken, and the place of its blocks; the swarm is joined anew.

    Raises:
        UnsupportedModelError: Petals' model is of a family that is not known here.
        SwarmUnreachableError: Its initial peers could not be reached.
    """
    if not is_distributed(model):
        return LocalClient(model, tokenizer)
    config = model.config.to_dict()
    weights: dict[str, torch.Tensor] = {name: each.detach() for name, each in model.named_parameters()}
    parts = ModelParts(config, family_of(config, config.get("_name_or_path", "client")), weights.get)

    def join() -> tuple[Routes, Callable[[], None]]:
        network, leave = shared_networks.join(model.config.initial_peers or PUBLIC_PEERS, _JOIN_SECONDS)
        routes = Routes(
            network,
            model.config.dht_prefix,
            parts.blocks,
            allowed=map(str, model.config.allowed_servers or ()),
            blocked=map(str, model.config.blocked_servers or ()),
            adapter=model.config.active_adapter,
        )
        return routes, leave

    generation_config = model.generation_config.to_dict() if model.generation_config is not None else {}
    return SwarmClient(parts, tokenizer, join, generation_config)


def _original(model: str) -> str:
    """Return the repository that petals >= 1.2 reads for `model`: `bigscience/bloom-petals` -> `bigscience/bloom`."""
    return model.removesuffix("-petals") if model.startswith("bigscience/") else model


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without support for it
        msg = f"device={device!r} cannot be used: {str(error).splitlines()[0]}"
        raise InvalidRequestError(msg) from None


def _dtype(name: str, config: Mapping[str, Any]) -> torch.dtype | None:
    """Return a type by its name; for "auto" the config's, or None for the checkpoint's."""
    if name == "auto":
        name = str(config.get("dtype") or config.get("torch_dtype"))
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None
