"""Loads a model's part in this process (tokenizer, embeddings and head), and joins its swarm."""

from langchain_petals.engine.loading.client import Client, load_client
from langchain_petals.engine.loading.connection import Connection

__all__ = ["Client", "Connection", "load_client"]
