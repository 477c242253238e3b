"""The servers of a swarm: routes through their blocks, and the connections to them."""

from langchain_petals.engine.network.announcements import online_servers
from langchain_petals.engine.network.hivemind_parts import P2PD
from langchain_petals.engine.network.network import CLOSED, Network
from langchain_petals.engine.network.networks import Networks, shared_networks
from langchain_petals.engine.network.overview import Pace, Survey, survey, survey_announcements, survey_models
from langchain_petals.engine.network.route_table import NO_ROOM, RouteTable
from langchain_petals.engine.network.routes import CacheLimitError, Routes
from langchain_petals.engine.network.server import AnnouncedModel, DescribedServer, Server, Span
from langchain_petals.engine.network.span_chain import SpanChain, SpanError
from langchain_petals.engine.network.span_stream import InvalidAnswerError

__all__ = [
    "CLOSED",
    "NO_ROOM",
    "P2PD",
    "AnnouncedModel",
    "CacheLimitError",
    "DescribedServer",
    "InvalidAnswerError",
    "Network",
    "Networks",
    "Pace",
    "RouteTable",
    "Routes",
    "Server",
    "Span",
    "SpanChain",
    "SpanError",
    "Survey",
    "online_servers",
    "shared_networks",
    "survey",
    "survey_announcements",
    "survey_models",
]
