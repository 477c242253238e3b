"""The chain of servers of a session, and the messages to them.

A `SpanChain` replaces petals' own `InferenceSession` inside the model's forward pass. It speaks the same protocol with
the same servers. The client's side differs. Each wait has a time limit, an error names the span that failed, and
nothing is retried silently. No step copies the history of hidden states. All hops of a step are one call on the
network's event loop. The servers work on different pieces of a long prompt at the same time.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import re
import uuid
from typing import TYPE_CHECKING, Any

import async_timeout
import torch

from langchain_petals.petals_compat import load_petals

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from langchain_petals.engine.network.routes import Routes
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

_NO_PROMPTS = torch.empty(0)  # petals' value for "no deep prompts"
_NO_REORDERING = torch.empty(0, dtype=torch.int64)  # petals' value for "the order of the rows does not change"
_CACHE_LIMIT = re.compile(r"Cannot allocate KV cache for \d+ tokens, max = (\d+)")
_NO_ROOM = re.compile(r"Could not allocate \d+")
# Most tokens (rows times length) of a piece. A longer step is cut into pieces: a server works on the second piece while
# the next server has the first. Up to this length, petals' servers run all their blocks in one task.
_PIECE_TOKENS = 128
_GRACE = 1.0  # seconds for the event loop to react after a time limit, and for a server to close a session


class SpanError(Exception):
    """A server could not be reached, or did not answer a step.

    Attributes:
        start: First block of its span.
        end: Block after the last one.
        peer_id: The server.
        cache_limit: Most tokens of one session in its attention cache, if it refused a larger session; else None.
        is_full: Whether it refused because other sessions fill its attention cache.
    """

    def __init__(self, span: Any, cause: BaseException) -> None:
        super().__init__(f"blocks {span.start}:{span.end} on {span.peer_id}: {cause!r}")
        self.start, self.end, self.peer_id = span.start, span.end, span.peer_id
        refused = _CACHE_LIMIT.search(str(cause))
        self.cache_limit = int(refused[1]) if refused else None
        self.is_full = _NO_ROOM.search(str(cause)) is not None


class SpanChain:
    """One session on a chain of servers.

    Args:
        routes: The model's routes.
        max_length: Tokens of attention cache to reserve on each server for each row.
        settings: Time limits of all waits.
        wait_for_room: Whether a server whose attention cache is full waits for room, up to half of `step_timeout`.

    Raises:
        SwarmError: There is no chain of servers over all blocks.
    """

    def __init__(self, routes: Routes, max_length: int, settings: Settings, *, wait_for_room: bool = False) -> None:
        self._api = load_petals()
        self._routes, self._max_length, self._settings = routes, max_length, settings
        spans = routes.choose(max_length, settings.connect_timeout)
        reservation = {"max_length": max_length, "alloc_timeout": settings.step_timeout / 2 if wait_for_room else 0.0}
        self._streams = [_SpanStream(self._api, span, routes.manager, reservation) for span in spans]
        self.position = 0

    def roll_back(self, position: int) -> None:
        """Let the next step continue at an earlier position; needs servers of petals 2.3."""
        self.position = position
        for stream in self._streams:
            stream.roll_back(position)

    def step(self, inputs: torch.Tensor, prompts: torch.Tensor | None = None, hypo_ids: Any = None) -> torch.Tensor:
        """Send hidden states, shape (rows, new tokens, hidden size), through all blocks; raise SpanError on failure.

        Petals' models call this in their forward pass, here without `prompts` (deep prompts) and `hypo_ids` (an order
        of rows). The result has the shape, device and type of `inputs`.
        """
        if prompts is not None or hypo_ids is not None:
            msg = "deep prompts and reordered rows are not supported by this session"
            raise ValueError(msg)
        rows, tokens, _ = inputs.shape
        seconds = self._settings.step_bound(rows * tokens)
        bound = len(self._streams) * (seconds + self._settings.connect_timeout) + _GRACE
        outputs: torch.Tensor = self._wait_for(self._pass_through(inputs.cpu(), seconds), bound)
        for stream in self._streams:
            self._routes.report_success(stream.span.peer_id)
        self.position += tokens
        return outputs.to(device=inputs.device, dtype=inputs.dtype)

    async def _pass_through(self, hidden: torch.Tensor, seconds: float) -> torch.Tensor:
        if not self._streams[-1].is_open:
            await self._open_streams()
        rows, tokens, _ = hidden.shape
        length = max(1, _PIECE_TOKENS // rows) if len(self._streams) > 1 else tokens
        if tokens <= length:
            return await self._walk(hidden, seconds)
        walks = [asyncio.ensure_future(self._walk(piece, seconds)) for piece in torch.split(hidden, length, dim=1)]
        try:
            return torch.cat(await asyncio.gather(*walks), dim=1)
        finally:
            for walk in walks:
                walk.cancel()

    async def _open_streams(self) -> None:
        """Connect to all servers at the same time; all attempts have ended when this returns or raises."""
        openings = [
            self._bounded(stream, stream.open(), self._settings.connect_timeout)
            for stream in self._streams
            if not stream.is_open
        ]
        for error in await asyncio.gather(*openings, return_exceptions=True):
            if error is not None:
                raise error

    async def _walk(self, hidden: torch.Tensor, seconds: float) -> torch.Tensor:
        """Send a piece through the chain, from server to server.

        The pieces of a step reach each server in order. The locks of a stream are fair, and a piece that leaves one
        server requests the next server's lock before any other piece runs.
        """
        for stream in self._streams:
            hidden = await self._bounded(stream, stream.exchange(hidden), seconds)
        return hidden

    async def _bounded(self, stream: _SpanStream, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        try:
            async with async_timeout.timeout(seconds):
                return await work
        except Exception as error:  # this server caused any error of this hop
            raise SpanError(stream.span, error) from error

    def close(self) -> None:
        """End the sessions on all servers, which frees their caches; wait two seconds at most, and do not raise."""
        streams, self._streams = self._streams, []
        try:
            self._wait_for(_close_all(streams), 2 * _GRACE)
        except (concurrent.futures.TimeoutError, TimeoutError):
            logger.debug("Closing a session took too long; its servers will notice the end of the connection.")

    def _wait_for(self, work: Coroutine[Any, Any, Any], bound: float) -> Any:
        future = self._api.worker.run_coroutine(work, return_future=True)
        try:
            return future.result(bound)
        except BaseException:
            future.cancel()
            raise


async def _close_all(streams: list[_SpanStream]) -> None:
    await asyncio.gather(*(stream.close() for stream in streams))


class _SpanStream:
    """The stream to one server; used on hivemind's event loop.

    It reads and writes hivemind's frames itself. When a server closes the connection, hivemind's own client waits until
    all requests are sent, so only the time limit would show that a server has died during a session.
    """

    def __init__(self, api: Any, span: Any, manager: Any, reservation: Mapping[str, float]) -> None:
        self._api, self.span, self._manager = api, span, manager
        self._uid = api.chain_delimiter.join(manager.block_uids[span.start : span.end])
        self._session_id = str(uuid.uuid4())
        self._reservation = reservation
        self._reader: Any = None
        self._writer: Any = None
        self._sending, self._receiving = asyncio.Lock(), asyncio.Lock()
        # the tensors after the first one, equal in all requests; None before the first request
        self._unchanging: list[Any] | None = None
        self._rolled_back_to: int | None = None

    @property
    def is_open(self) -> bool:
        return self._writer is not None

    async def open(self) -> None:
        handle = self._api.handler._get_handle_name(None, "rpc_inference")  # noqa: SLF001 - no public function returns the protocol's name of the call
        p2p = self._manager.state.p2p
        _, self._reader, self._writer = await p2p.call_binary_stream_handler(self.span.peer_id, handle)

    def roll_back(self, position: int) -> None:
        self._rolled_back_to = position

    async def exchange(self, hidden: torch.Tensor) -> torch.Tensor:
        """Send hidden states, shape (rows, tokens, hidden size); return those after the span's blocks."""
        api = self._api
        async with self._sending:
            await self._send(self._request(hidden))
        async with self._receiving:
            answer, error = await api.p2p.receive_protobuf(api.runtime_pb2.ExpertResponse, self._reader)
        if error is not None:
            raise RuntimeError(error.message)
        outputs: torch.Tensor = api.hivemind.deserialize_torch_tensor(answer.tensors[0])
        if outputs.shape != hidden.shape:
            msg = f"sent hidden states of shape {tuple(hidden.shape)}, got back {tuple(outputs.shape)}"
            raise ValueError(msg)
        return outputs

    async def _send(self, request: Any) -> None:
        """Send a message like hivemind's `send_protobuf`, but with one write instead of three, to save packets."""
        p2p, message = self._api.p2p, request.SerializeToString()
        self._writer.write(p2p.MESSAGE_MARKER + len(message).to_bytes(p2p.HEADER_LEN, p2p.BYTEORDER) + message)
        await self._writer.drain()

    def _request(self, hidden: torch.Tensor) -> Any:
        """Return the next message; the first one has the metadata of the session."""
        metadata: dict[str, Any] = {}
        if self._unchanging is None:
            tensors, structure = self._api.pack_args_kwargs(hidden, _NO_PROMPTS, _NO_REORDERING)
            self._unchanging = [self._serialized(tensor) for tensor in tensors[1:]]
            metadata |= self._manager.get_request_metadata("rpc_inference", structure, self._uid) or {}
            metadata |= {"session_id": self._session_id, "args_structure": structure, **self._reservation}
        if self._rolled_back_to is not None:
            metadata["start_from_position"] = self._rolled_back_to
            self._rolled_back_to = None
        return self._api.runtime_pb2.ExpertRequest(
            uid=self._uid,
            tensors=[self._serialized(hidden), *self._unchanging],
            metadata=self._api.hivemind.MSGPackSerializer.dumps(metadata),
        )

    def _serialized(self, tensor: torch.Tensor) -> Any:
        return self._api.hivemind.serialize_torch_tensor(tensor, self._api.runtime_pb2.CompressionType.NONE)

    async def close(self) -> None:
        """Send the last message and wait until the server closes the connection, when its cache is free."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if self._unchanging is not None:
                await self._api.p2p.send_protobuf(self._api.runtime_pb2.ExpertRequest(), writer)
                # read up to the end, since an earlier answer may still come first
                await asyncio.wait_for(self._reader.read(), _GRACE)
        # uvloop raises RuntimeError for a write to a closed transport; asyncio's TimeoutError is an OSError from 3.11
        except (OSError, RuntimeError, asyncio.TimeoutError) as error:
            logger.debug("The stream to %s broke before it was closed: %r", self.span.peer_id, error)
        finally:
            writer.close()
