"""Loads a model's part in this process (tokenizer, embeddings and head), and joins its swarm."""

from langchain_petals.engine.loading.clients import Client, LocalClient, SwarmClient
from langchain_petals.engine.loading.connection import Connection
from langchain_petals.engine.loading.load import client_over, load_client

__all__ = ["Client", "Connection", "LocalClient", "SwarmClient", "client_over", "load_client"]
