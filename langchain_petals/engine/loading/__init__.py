"""Loads a model's part in this process (tokenizer, embeddings and head), and joins its swarm."""

from langchain_petals.engine.loading.clients import Client, LocalClient, SwarmClient
from langchain_petals.engine.loading.connection import Connection
from langchain_petals.engine.loading.load import (
    PUBLIC_PEERS,
    LocatedModel,
    client_over,
    join_swarm,
    load_client,
    locate_model,
)

__all__ = [
    "PUBLIC_PEERS",
    "Client",
    "Connection",
    "LocalClient",
    "LocatedModel",
    "SwarmClient",
    "client_over",
    "join_swarm",
    "load_client",
    "locate_model",
]
