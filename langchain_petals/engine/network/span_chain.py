"""One session on a chain of servers: hidden states go in before the first block and come out after the last one.

Each wait has a bound, and an error names the span that failed. Nothing is retried here. All hops of a step are made in
one visit to the network's event loop, and the servers work on different pieces of a long prompt at the same time.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.network.routes import TIMED_OUT
from langchain_petals.engine.network.span_stream import LARGEST, RefusedError, SpanStream
from langchain_petals.errors import SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from langchain_petals.engine.network.routes import Routes
    from langchain_petals.engine.network.server import Span
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

_CACHE_LIMIT = re.compile(r"Cannot allocate KV cache for \d{1,12} tokens, max = (\d{1,12})\b")
_NO_ROOM = re.compile(r"Could not allocate \d+")
# A longer step is cut into pieces that follow one another through the chain: a server starts on the second piece while
# the next server has the first. Up to this length (rows times tokens) petals' servers run all their blocks in one go.
_PIECE_TOKENS = 128
_LEAST_LIMIT = 64  # tokens; petals' own least is 2048, and private swarms may have less
_NO_MORE_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_GRACE_SECONDS = 1.0  # that the event loop gets beyond a bound, and that closing a session may take


class SpanError(Exception):
    """A server could not be reached, or did not answer a step.

    Attributes:
        span: The server and its blocks.
        cache_limit: Tokens that its attention cache holds for one session, when it refused because of that; None also
            for a number that no real server has.
        is_full: Whether it refused because other sessions take up its attention cache.
        others: Errors of other servers of the chain that could not be reached either.
    """

    def __init__(self, span: Span, cause: BaseException) -> None:
        super().__init__(f"blocks {span.start}:{span.end} on {span.server.peer_id}: {cause!r}")
        self.span = span
        said = str(cause) if isinstance(cause, RefusedError) else ""
        refused = _CACHE_LIMIT.search(said)
        limit = int(refused[1]) if refused else 0
        self.cache_limit = limit if limit >= _LEAST_LIMIT else None
        self.is_full = _NO_ROOM.search(said) is not None
        self.others: Sequence[SpanError] = ()


class SpanChain:
    """One session on a chain of servers.

    Args:
        routes: The model's routes.
        max_length: Tokens of attention cache to reserve on each server for each row.
        needed: Tokens that will do where a server is known to have room for less.
        settings: Bounds of all waits.
        wait_for_room: Whether a server whose attention cache is full waits until there is room: for half of the time
            that a step may take.

    Raises:
        SwarmError: There is no chain of servers over all blocks, or none with room for the tokens that are needed.
    """

    def __init__(
        self, routes: Routes, max_length: int, needed: int, settings: Settings, *, wait_for_room: bool = False
    ) -> None:
        self._routes, self._network, self._settings = routes, routes.network, settings
        self.spans, self.max_length = routes.choose(max_length, needed, settings.connect_timeout)
        session: dict[str, Any] = {
            "max_length": self.max_length,
            "points": 0.0,
            "alloc_timeout": settings.step_timeout / 2 if wait_for_room else 0.0,
        }
        if routes.adapter is not None:
            session["active_adapter"] = routes.adapter
        self._streams = [SpanStream(self._network, span, routes.uids, session) for span in self.spans]

    @property
    def peer_ids(self) -> tuple[str, ...]:
        """Its servers, in the order of the blocks."""
        return tuple(span.server.peer_id for span in self.spans)

    @property
    def can_roll_back(self) -> bool:
        """Whether all of its servers can forget tokens."""
        return all(span.server.can_roll_back for span in self.spans)

    def roll_back(self, position: int) -> None:
        """Let the next step go on at an earlier position; see `can_roll_back`."""
        for stream in self._streams:
            stream.roll_back(position)

    def step(self, hidden: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """Run hidden states through all blocks.

        Args:
            hidden: Hidden states, shape (rows, new tokens, hidden size).
            order: For each row the one that it goes on from, shape (rows,); None for its own.

        Returns:
            Hidden states after the last block, in the shape, on the device and in the type of `hidden`.

        Raises:
            SpanError: A server failed or took too long.
            SwarmUnreachableError: The network was left meanwhile, or came to a stop.
        """
        rows, tokens, _ = hidden.shape
        seconds = self._settings.step_bound(rows * tokens)
        bound = len(self._streams) * (seconds + self._settings.connect_timeout) + _GRACE_SECONDS
        try:
            outputs = self._network.wait_for(self._pass_through(hidden.cpu(), order, seconds), bound)
        except TIMED_OUT:  # each server has a bound of its own, so no server is to blame
            msg = f"This process's connection to the swarm came to a stop for {bound:g} s. Try again."
            raise SwarmUnreachableError(msg) from None
        for span in self.spans:
            self._routes.report_success(span.server.peer_id)
        return outputs.to(device=hidden.device, dtype=hidden.dtype)

    async def _pass_through(self, hidden: torch.Tensor, order: torch.Tensor | None, seconds: float) -> torch.Tensor:
        if not self._streams[-1].is_open:
            await self._open_streams()
        rows, tokens, _ = hidden.shape
        length = max(1, _PIECE_TOKENS // rows) if len(self._streams) > 1 and order is None else tokens
        if tokens <= length:
            return await self._walk(hidden, order, seconds)
        walks = [
            asyncio.ensure_future(self._walk(piece, None, seconds)) for piece in torch.split(hidden, length, dim=1)
        ]
        try:
            return torch.cat(await asyncio.gather(*walks), dim=1)
        finally:
            for walk in walks:
                walk.cancel()

    async def _open_streams(self) -> None:
        """Connect to all servers at once; when this returns or raises, none is still being connected to."""
        openings = [
            _bounded(stream, stream.open(), self._settings.connect_timeout)
            for stream in self._streams
            if not stream.is_open
        ]
        errors = [error for error in await asyncio.gather(*openings, return_exceptions=True) if error is not None]
        if errors:
            first = errors[0]
            if isinstance(first, SpanError):
                first.others = [error for error in errors[1:] if isinstance(error, SpanError)]
            raise first

    async def _walk(self, hidden: torch.Tensor, order: torch.Tensor | None, seconds: float) -> torch.Tensor:
        """Take a piece from server to server.

        The pieces of a step come to each server in their order: the locks of a stream are fair, and a piece that is
        through with one server stands in line for the next one before anything else can happen.
        """
        largest = min(LARGEST, torch.finfo(hidden.dtype).max)  # the servers' types may be wider than this client's
        for stream in self._streams:
            hidden = await _bounded(stream, stream.exchange(hidden, order, largest), seconds)
        return hidden

    def close(self) -> None:
        """End the sessions on all servers, which frees their caches; never raises, never blocks for long."""
        streams, self._streams = self._streams, []
        if not self._network.is_open:
            return
        try:
            self._network.wait_for(_close_all(streams), 2 * _GRACE_SECONDS)
        except (*TIMED_OUT, SwarmUnreachableError):
            logger.debug("A session was not closed in time; its servers will notice that the connection is gone.")


async def _bounded(stream: SpanStream, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
    try:
        return await asyncio.wait_for(work, seconds)
    except MemoryError:  # a fault of this process, as the next one; everything else is the server's
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_MORE_FILES:
            msg = (
                "This process has too many open files, so it cannot connect to servers. Close some, or raise the limit."
            )
            raise SwarmUnreachableError(msg) from error
        raise SpanError(stream.span, error) from error


async def _close_all(streams: list[SpanStream]) -> None:
    await asyncio.gather(*(stream.close() for stream in streams))
