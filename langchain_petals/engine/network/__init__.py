"""The servers of a swarm: routes through their blocks, and the connections to them."""

from langchain_petals.engine.network.network import Network
from langchain_petals.engine.network.networks import Networks, shared_networks
from langchain_petals.engine.network.routes import CLOSED, CacheLimitError, Routes
from langchain_petals.engine.network.span_chain import SpanChain, SpanError

__all__ = ["CLOSED", "CacheLimitError", "Network", "Networks", "Routes", "SpanChain", "SpanError", "shared_networks"]
