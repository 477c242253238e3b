"""A server of the swarm, what it says of itself, and the span of a chain that it serves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is online.

    Attributes:
        peer_id: Its peer id, in base 58.
        start: First block of its span.
        end: Block after the last one.
        blocks_per_second: Blocks that it runs in a second, for one token. Petals' own guess where it does not say.
        can_roll_back: Whether it can forget the last tokens of a session.
        cache_tokens_left: Free attention cache: tokens times blocks, keys and values counted apart; None if unknown.
        next_pings: Round trips from there to other servers, in seconds, by peer id.
        adapters: Names of the LoRA adapters that it can apply.
        dtype: Type in which it computes; None if it announces none that is known.
    """

    peer_id: str
    start: int
    end: int
    blocks_per_second: float = 300.0
    can_roll_back: bool = False
    cache_tokens_left: int | None = None
    next_pings: Mapping[str, float] = field(default_factory=dict)
    adapters: frozenset[str] = frozenset()
    dtype: torch.dtype | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """Blocks of a chain that one server runs.

    Attributes:
        server: The server.
        start: First block.
        end: Block after the last one.
    """

    server: Server
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DescribedServer:
    """A server that is online or joining, with what it says of itself for people to read.

    Texts have one line, and nothing in them that a terminal would obey.

    Attributes:
        server: The server, as routes use it.
        is_joining: Whether it cannot be used yet.
        has_speed: Whether `server.blocks_per_second` is what it announces, and no guess.
        throughput: Tokens in a second of many requests together, as it announces.
        version: Of petals.
        name: What its owner calls it.
        quantization: How its weights are stored.
        uses_relay: Whether it is reached through another peer.
    """

    server: Server
    is_joining: bool = False
    has_speed: bool = False
    throughput: float = 0.0
    version: str | None = None
    name: str | None = None
    quantization: str | None = None
    uses_relay: bool | None = None


@dataclass(frozen=True, slots=True)
class AnnouncedModel:
    """A model that servers of a swarm announce.

    Attributes:
        prefix: The name under which its blocks are announced.
        blocks: Number of blocks.
        repository: Address on the hub; None for a folder of the servers' own.
    """

    prefix: str
    blocks: int
    repository: str | None = None
