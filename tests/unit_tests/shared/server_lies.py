"""What servers that lie send instead of the hidden states that they are asked for; they hang up afterwards."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.network.hivemind_parts import (
    CompressionType,
    ExpertResponse,
    RPCError,
    serialize_torch_tensor,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    Lie = Callable[[torch.Tensor], AsyncIterator[bytes]]
    """Takes the hidden states that were sent, shape (rows, tokens, hidden size)."""

ANSWER, ERROR = b"\x00", b"\x01"
_PART = bytes(2**16)


def frame(text: bytes, *, kind: bytes = ANSWER, length: int | None = None) -> bytes:
    """Return a frame; `length` is what its header claims."""
    return kind + (len(text) if length is None else length).to_bytes(8, "big") + text


def answer(tensors: Sequence[Any]) -> bytes:
    """Return the frame of an answer with these serialized tensors."""
    return frame(ExpertResponse(tensors=tensors).SerializeToString())


def _tensors(make: Callable[[torch.Tensor], Sequence[Any]]) -> Lie:
    async def lie(hidden: torch.Tensor) -> AsyncIterator[bytes]:
        yield answer(make(hidden))

    return lie


def _tensor(make: Callable[[torch.Tensor], torch.Tensor]) -> Lie:
    return _tensors(lambda hidden: [serialize_torch_tensor(make(hidden))])


def _changed(**fields: Any) -> Lie:
    def make(hidden: torch.Tensor) -> Sequence[Any]:
        tensor = serialize_torch_tensor(hidden)
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(tensor, name)[:] = value
            else:
                setattr(tensor, name, value)
        return [tensor]

    return _tensors(make)


def _compressed(method: int) -> Lie:
    return _tensors(lambda hidden: [serialize_torch_tensor(hidden, method)])


def _bytes(*parts: bytes) -> Lie:
    async def lie(_: torch.Tensor) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return lie


def says(text: str) -> Lie:
    """Return a lie that is an error."""
    return _bytes(frame(RPCError(message=text).SerializeToString(), kind=ERROR))


async def _silence(_: torch.Tensor) -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


def _claim(claimed: int, sent: int, kind: bytes = ANSWER) -> Lie:
    """Return a lie that claims some bytes in its header and sends some, and then waits."""

    async def lie(hidden: torch.Tensor) -> AsyncIterator[bytes]:
        yield kind + claimed.to_bytes(8, "big")
        for _ in range(sent // len(_PART)):
            yield _PART
        async for part in _silence(hidden):
            yield part

    return lie


async def _empty_fields(hidden: torch.Tensor) -> AsyncIterator[bytes]:
    """Send as many empty tensors as fit into an answer: a parser would make an object of each."""
    yield frame(b"\x12\x00" * (hidden.numel() * 2))


async def _cut_in_a_tensor(hidden: torch.Tensor) -> AsyncIterator[bytes]:
    yield answer([serialize_torch_tensor(hidden)])[:-3]


GIGABYTE = 2**30

CLAIMS: dict[str, Lie] = {
    "a header of 4 GB": _claim(4 * GIGABYTE, 0),
    "6 GB, and some of it is sent": _claim(6 * GIGABYTE, GIGABYTE // 4),
    "the largest header": _claim(2**64 - 1, 0),
    "an error of 6 GB": _claim(6 * GIGABYTE, GIGABYTE // 4, ERROR),
}
"""Answers that claim to be larger than any can be."""

NO_ANSWERS: dict[str, Lie] = {
    "NaN": _tensor(lambda hidden: hidden * math.nan),
    "infinity": _tensor(lambda hidden: hidden + math.inf),
    "one infinity": _tensor(lambda hidden: torch.where(torch.arange(hidden.shape[-1]) == 1, -math.inf, hidden)),
    "numbers that no norm can take": _tensor(lambda hidden: hidden * 0 + 3e38),
    "integers": _tensor(lambda hidden: hidden.long()),
    "wide numbers": _tensor(lambda hidden: hidden.double()),
    "one token more": _tensor(lambda hidden: torch.cat([hidden, hidden[:, :1]], dim=1)),
    "one token less": _tensor(lambda hidden: hidden[:, 1:]),
    "no rows": _tensor(lambda hidden: hidden[0]),
    "no tensor": _tensors(lambda _: []),
    "two tensors": _tensors(lambda hidden: [serialize_torch_tensor(hidden)] * 2),
    "float16 by compression": _compressed(CompressionType.FLOAT16),
    "8 bits": _compressed(CompressionType.UNIFORM_8BIT),
    "a method that there is not": _changed(compression=99),
    "several chunks": _changed(chunks=7),
    "a type that there is not": _changed(dtype="float" * 1000),
    "a type that is something else of torch": _changed(dtype="load"),
    "a huge shape": _changed(size=[2**31, 2**31, 2**31]),
    "a shape of many numbers": _changed(size=[1] * 10_000),
    "few bytes": _changed(buffer=b"abcd"),
    "garbage": _bytes(frame(b"\xff" * 1000)),
    "an empty message": _bytes(frame(b"")),
    "many empty tensors": _empty_fields,
    "neither answer nor error": _bytes(b"\x07" + bytes(8)),
    "an error that is garbage": _bytes(frame(b"\xff" * 1000, kind=ERROR)),
    "a long error": says("\x1b[31mNo.\n" * 7000),
    "room for 3 tokens": says("ValueError: Cannot allocate KV cache for 9 tokens, max = 3"),
    "room for no number of tokens": says(f"ValueError: Cannot allocate KV cache for 9 tokens, max = {10**30}"),
    "hanging up": _bytes(),
    "hanging up in a header": _bytes(b"\x00" + bytes(4)),
    "hanging up in a frame": _cut_in_a_tensor,
}
"""Lies after which a server is left alone."""

SILENCE: dict[str, Lie] = {"silence": _silence}

FULL = says("AllocationFailed: Could not allocate 73728 bytes immediately: out of memory")


def short_of_room(limit: int) -> Lie:
    """Return a server's word that it has room for so many tokens."""
    return says(f"ValueError: Cannot allocate KV cache for 9999 tokens, max = {limit}")
