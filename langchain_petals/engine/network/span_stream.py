"""The stream to one server of a chain, in the frames of the swarm's protocol.

hivemind's own client for streams waits, once the server has closed the connection, for the *requests* to end: a server
that died in mid-session would show only as a time-out. So frames are read and written here. What a frame says of itself
is checked before it is read into memory, and what it holds before anybody computes with it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.network.hivemind_parts import (
    CompressionType,
    ExpertRequest,
    ExpertResponse,
    MSGPackSerializer,
    RPCError,
    deserialize_torch_tensor,
    serialize_torch_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.engine.network.network import Network
    from langchain_petals.engine.network.server import Span

logger = logging.getLogger(__name__)

HANDLER = "TransformerConnectionHandler."  # the name of petals' class is part of the protocol

_MESSAGE, _ERROR = b"\x00", b"\x01"
_LENGTH_BYTES = 8
_FRAME_OVERHEAD = 65_536  # bytes that an answer may have beside its numbers
_LONGEST_ERROR = 65_536  # bytes
_LONGEST_REASON = 500  # characters of an error that are kept
_WIDEST_NUMBER = 4  # bytes
LARGEST = 1e10
"""Largest number of hidden states that is believed. Real models stay below 1e6; norms of far larger ones overflow."""
_MOST_FIELDS = 16  # petals' answers have one or two
# of protobuf's encoding: a kind of fields, the most bytes of a number, and the bit of all of its bytes but the last
_WITH_LENGTH, _LONGEST_VARINT, _MORE_FOLLOWS = 2, 10, 0x80
_GOODBYE_SECONDS = 1.0

_NO_PROMPTS = torch.empty(0)  # the protocol's mark for "no deep prompts"
_NO_REORDERING = torch.empty(0, dtype=torch.int64)  # and for "the rows stay as they are"
_TYPES = frozenset({"float32", "float16", "bfloat16"})


class InvalidAnswerError(Exception):
    """A server sent what cannot be an answer to what it was asked."""


class RefusedError(Exception):
    """A server answered with an error; its text is cut, and has one line of printable characters."""

    def __init__(self, text: str) -> None:
        printable = "".join(each if each.isprintable() else " " for each in text[:_LONGEST_REASON])
        super().__init__(" ".join(printable.split()))


class SpanStream:
    """A stream to one server; used on the network's event loop only.

    Args:
        network: The swarm.
        span: The server and its blocks.
        uids: The names of the model's blocks in the swarm.
        session: What the server has to know of the session: `max_length` and the like.
    """

    def __init__(self, network: Network, span: Span, uids: list[str], session: Mapping[str, Any]) -> None:
        self.span = span
        self._network = network
        self._uid = " ".join(uids[span.start : span.end])
        self._first_metadata: dict[str, Any] | None = {**session, "session_id": str(uuid.uuid4())}
        self._rolled_back_to: int | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._sending, self._receiving = asyncio.Lock(), asyncio.Lock()
        self._is_broken = False  # whether the server sent what is no answer: nothing it sends makes sense after that

    @property
    def is_open(self) -> bool:
        """Whether the server is connected to."""
        return self._writer is not None

    async def open(self) -> None:
        """Connect to the server."""
        stream = await self._network.open_stream(self.span.server.peer_id, HANDLER + "rpc_inference")
        self._reader, self._writer = stream

    def roll_back(self, position: int) -> None:
        """Let the next exchange go on at an earlier position."""
        self._rolled_back_to = position

    async def exchange(
        self, hidden: torch.Tensor, order: torch.Tensor | None = None, largest: float = LARGEST
    ) -> torch.Tensor:
        """Send hidden states, and wait for those after the span's last block.

        Several exchanges may be under way: they are answered in their order.

        The first thing that a server does is to convert hidden states to the type in which it computes. If that is
        narrower, they are converted here instead: the same numbers travel in fewer bytes.

        Args:
            hidden: Shape (rows, tokens, hidden size).
            order: For each row the one whose attention cache it goes on from, shape (rows,); None for its own.
            largest: Largest number that the answer may have.

        Raises:
            RefusedError: The server answered with an error.
            InvalidAnswerError: The answer is none to this request.
            Exception: protobuf's, about an answer that is no message.
            OSError: The connection ended.
        """
        async with self._sending:
            await self._send(self._request(_narrowed(hidden, self.span.server.dtype), order))
        async with self._receiving:
            return await self._receive(hidden, largest)

    def _request(self, hidden: torch.Tensor, order: torch.Tensor | None) -> bytes:
        metadata, self._first_metadata = self._first_metadata or {}, None
        if self._rolled_back_to is not None:
            metadata["start_from_position"], self._rolled_back_to = self._rolled_back_to, None
        tensors = (hidden, _NO_PROMPTS, _NO_REORDERING if order is None else order)
        message: bytes = ExpertRequest(
            uid=self._uid,
            tensors=[serialize_torch_tensor(tensor, CompressionType.NONE) for tensor in tensors],
            metadata=MSGPackSerializer.dumps(metadata),
        ).SerializeToString()
        return message

    async def _send(self, message: bytes) -> None:
        # in one write: marker, length and message would be three packets on each leg of the way
        if self._writer is None:
            msg = "the stream is not open"
            raise ConnectionError(msg)
        self._writer.write(_MESSAGE + len(message).to_bytes(_LENGTH_BYTES, "big") + message)
        await self._writer.drain()

    async def _receive(self, sent: torch.Tensor, largest: float) -> torch.Tensor:
        if self._reader is None:
            msg = "the stream is not open"
            raise ConnectionError(msg)
        try:
            return await _answer(self._reader, sent, largest)
        except asyncio.IncompleteReadError:
            msg = "the server hung up"
            raise ConnectionResetError(msg) from None
        except RefusedError:
            raise
        except Exception:
            self._is_broken = True
            raise

    async def close(self) -> None:
        """Say goodbye and wait until the server hangs up, by which time its attention cache is free again."""
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        if reader is None or writer is None:
            return
        try:
            if self._first_metadata is None and not self._is_broken:
                await asyncio.wait_for(_say_goodbye(reader, writer), _GOODBYE_SECONDS)
        # uvloop raises RuntimeError for a write to a closed transport; asyncio's TimeoutError is OSError from 3.11 on
        except (OSError, RuntimeError, asyncio.TimeoutError) as error:
            logger.debug("The stream to %s broke before it was closed: %r", self.span.server.peer_id, error)
        finally:
            writer.transport.abort()  # closing would wait for a server that does not read


def _narrowed(hidden: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Return hidden states in a server's type if that has fewer bytes, else as they are."""
    return hidden if dtype is None or dtype.itemsize >= hidden.dtype.itemsize else hidden.to(dtype)


async def _answer(reader: asyncio.StreamReader, sent: torch.Tensor, largest: float) -> torch.Tensor:
    """Read the answer to hidden states; what is longer than it can be is not read."""
    kind = await reader.readexactly(1)
    length = int.from_bytes(await reader.readexactly(_LENGTH_BYTES), "big")
    longest = _LONGEST_ERROR if kind == _ERROR else sent.numel() * _WIDEST_NUMBER + _FRAME_OVERHEAD
    if kind not in (_MESSAGE, _ERROR) or length > longest:
        msg = f"a frame of kind {kind!r} with {length} bytes, where at most {longest} make sense"
        raise InvalidAnswerError(msg)
    frame = await reader.readexactly(length)
    if kind == _ERROR:
        raise RefusedError(RPCError.FromString(frame).message)
    _check_fields(frame)
    return _hidden_states(ExpertResponse.FromString(frame), sent, largest)


async def _say_goodbye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an empty request, which ends the session, and read to the end: late answers may come first."""
    writer.write(_MESSAGE + bytes(_LENGTH_BYTES))
    await writer.drain()
    while await reader.read(_FRAME_OVERHEAD):
        pass


def _check_fields(frame: bytes) -> None:
    """Check that a message has few fields, before a parser makes objects of them: each field takes 2 bytes or more.

    See https://protobuf.dev/programming-guides/encoding: a field begins with its number and kind; all fields of an
    `ExpertResponse` are of the kind that has a length.
    """
    position, fields = 0, 0
    while position < len(frame) and fields < _MOST_FIELDS:
        tag, position = _varint(frame, position)
        if tag & 7 != _WITH_LENGTH:
            msg = "a message with fields that an answer does not have"
            raise InvalidAnswerError(msg)
        length, position = _varint(frame, position)
        position, fields = position + length, fields + 1
    if position != len(frame):
        msg = f"a message of {len(frame)} bytes that is cut off, or has more than {_MOST_FIELDS} fields"
        raise InvalidAnswerError(msg)


def _varint(frame: bytes, position: int) -> tuple[int, int]:
    """Return a number of variable length, and the position after it."""
    number = 0
    for shift, byte in enumerate(frame[position : position + _LONGEST_VARINT]):
        number |= (byte % _MORE_FOLLOWS) << 7 * shift
        if byte < _MORE_FOLLOWS:
            return number, position + shift + 1
    msg = "a message that is cut off"
    raise InvalidAnswerError(msg)


def _hidden_states(answer: Any, sent: torch.Tensor, largest: float) -> torch.Tensor:
    """Return the hidden states of an answer, checked: shape, type, size, and that no number is too large or NaN."""
    if len(answer.tensors) != 1:
        msg = f"{len(answer.tensors)} tensors instead of one"
        raise InvalidAnswerError(msg)
    [tensor] = answer.tensors
    # its length first: a shape of some bytes may have millions of numbers
    if len(tensor.size) != sent.dim() or tuple(tensor.size) != tuple(sent.shape) or tensor.dtype not in _TYPES:
        msg = f"a tensor of shape {list(tensor.size[:4])} and type {tensor.dtype!r:.40} for one of {list(sent.shape)}"
        raise InvalidAnswerError(msg)
    width = getattr(torch, tensor.dtype).itemsize
    if tensor.compression != CompressionType.NONE or len(tensor.buffer) != sent.numel() * width or tensor.chunks > 1:
        msg = f"{len(tensor.buffer)} bytes, compressed by method {tensor.compression}, for {sent.numel()} numbers"
        raise InvalidAnswerError(msg)
    hidden: torch.Tensor = deserialize_torch_tensor(tensor).detach()
    if hidden.numel() and not hidden.abs().amax() <= largest:  # so that NaN is refused, too
        msg = f"hidden states with numbers that are not finite, or larger than {largest:g}"
        raise InvalidAnswerError(msg)
    return hidden
