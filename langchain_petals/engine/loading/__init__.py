"""Models loaded into this process: embeddings and head, tokenizer, and the way to the swarm."""

from langchain_petals.engine.loading.client import Client, load_client
from langchain_petals.engine.loading.connection import Connection

__all__ = ["Client", "Connection", "load_client"]
