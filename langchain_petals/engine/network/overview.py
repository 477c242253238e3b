"""A look at a swarm for people: which servers hold which blocks of a model, and which models there are.

Unlike `Routes`, it remembers nothing, and asks every server for an answer: one that is announced may be gone.
"""

from __future__ import annotations

import asyncio
import bisect
import math
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, TypeVar

from langchain_petals.engine.network.announcements import announced_models, described_servers
from langchain_petals.engine.network.route_table import RouteTable
from langchain_petals.engine.network.routes import TIMED_OUT
from langchain_petals.errors import SwarmUnreachableError, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence

    from langchain_petals.engine.network.network import Network
    from langchain_petals.engine.network.server import AnnouncedModel, DescribedServer, Span

_T = TypeVar("_T")

_MODELS_KEY = "_petals.models"
_READING_SECONDS = 30.0
_MOST_PINGED = 300  # servers
_TOKENS = 256  # of the answer that a chain is chosen for


@dataclass(frozen=True)
class Pace:
    """How long a token takes at best, for one answer.

    Attributes:
        spans: The chain.
        on_the_way: Seconds on the way to its servers and back, as measured.
        computing: Seconds that its servers work, as they announce; those that announce no speed are not in it.
        silent: Number of servers that announce no speed.
    """

    spans: tuple[Span, ...]
    on_the_way: float
    computing: float
    silent: int

    @property
    def tokens_per_second(self) -> float:
        """The reciprocal of the seconds."""
        return 1 / max(self.on_the_way + self.computing, 1e-6)


@dataclass(frozen=True)
class Survey:
    """The servers of one model.

    Attributes:
        prefix: The name under which the blocks are announced.
        blocks: Number of blocks of the model.
        servers: Those that are online or joining, by the beginnings of their spans.
        round_trips: Seconds to servers and back, by peer id; infinite where there was no answer. Servers that were not
            asked are not in it.
    """

    prefix: str
    blocks: int
    servers: Sequence[DescribedServer]
    round_trips: Mapping[str, float] = field(default_factory=dict)

    def answers(self, server: DescribedServer) -> bool:
        """Whether a server is there: it has answered, or was not asked."""
        return math.isfinite(self.round_trips.get(server.server.peer_id, 0.0))

    @property
    def usable(self) -> list[DescribedServer]:
        """Servers that a chain can have."""
        return [each for each in self.servers if not each.is_joining and self.answers(each)]

    @property
    def missing(self) -> list[int]:
        """Blocks that no usable server holds."""
        return self._table().missing

    @property
    def pace(self) -> Pace | None:
        """What the fastest chain takes for a token; None where blocks are missing."""
        table = self._table()
        if table.missing:
            return None
        spans = table.choose(_TOKENS, self.round_trips)
        known = {each.server.peer_id for each in self.servers if each.has_speed}
        return Pace(
            tuple(spans),
            sum(self.round_trips.get(span.server.peer_id, 0.0) for span in spans),
            sum(_blocks(span) / span.server.blocks_per_second for span in spans if span.server.peer_id in known),
            sum(span.server.peer_id not in known for span in spans),
        )

    def _table(self) -> RouteTable:
        return RouteTable([each.server for each in self.usable], self.blocks, self.prefix)


def survey(network: Network, prefix: str, blocks: int) -> Survey:
    """Read what servers of a model announce, and ask each of them for an answer.

    Args:
        network: The swarm.
        prefix: The name under which the model's blocks are announced.
        blocks: Number of blocks of the model.

    Raises:
        SwarmUnreachableError: The DHT gave no answer.
    """

    async def look() -> Survey:
        records = await network.records([f"{prefix}.{block}" for block in range(blocks)])
        servers = described_servers(records, blocks)
        servers.sort(key=lambda each: (each.server.start, each.server.end, each.server.peer_id))
        asked = [each.server.peer_id for each in servers[:_MOST_PINGED]]
        first = await _round_trips(network, asked)
        # the first question pays for the connection, and a connection through a relay may take longer than it
        again = await _round_trips(network, asked)
        return Survey(prefix, blocks, servers, {each: min(first[each], again[each]) for each in asked})

    return _answer(network, look)


def survey_models(network: Network) -> list[AnnouncedModel]:
    """Return the models that servers of a swarm announce.

    Raises:
        SwarmUnreachableError: The DHT gave no answer.
    """

    async def look() -> list[AnnouncedModel]:
        return announced_models(await network.records([_MODELS_KEY]))

    return _answer(network, look)


def survey_announcements(network: Network, models: Iterable[AnnouncedModel]) -> list[Survey]:
    """Return what servers of several models announce, without asking each of them for an answer.

    Raises:
        SwarmUnreachableError: The DHT gave no answer.
    """
    known = list(models)
    firsts = list(accumulate((model.blocks for model in known), initial=0))

    async def look() -> list[Survey]:
        # one reading for all: strangers may announce more models than there is time for one after the other
        keys = [f"{model.prefix}.{block}" for model in known for block in range(model.blocks)]
        records = await network.records(keys) if keys else []
        borders = [bisect.bisect_left(records, first, key=itemgetter(0)) for first in firsts]
        found = []
        for model, first, (begin, end) in zip(known, firsts, pairwise(borders), strict=False):
            own = [(number - first, *rest) for number, *rest in records[begin:end]]
            found.append(Survey(model.prefix, model.blocks, described_servers(own, model.blocks)))
        return found

    return _answer(network, look)


async def _round_trips(network: Network, peer_ids: Sequence[str]) -> dict[str, float]:
    return dict(zip(peer_ids, await asyncio.gather(*map(network.round_trip, peer_ids)), strict=True))


def _answer(network: Network, look: Callable[[], Coroutine[None, None, _T]]) -> _T:
    async def bounded() -> _T:
        return await asyncio.wait_for(look(), _READING_SECONDS)

    try:
        return network.wait_for(bounded(), _READING_SECONDS + 1)
    except SwarmUnreachableError:
        raise
    except Exception as error:  # hivemind raises whatever p2pd said
        reason = f"within {_READING_SECONDS:g} s" if isinstance(error, TIMED_OUT) else f"({reason_of(error)})"
        msg = f"The swarm's DHT gave no answer {reason}. Check that the initial peers still run and can be reached."
        raise SwarmUnreachableError(msg) from error


def _blocks(span: Span) -> int:
    return span.end - span.start
