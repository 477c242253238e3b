"""A swarm in this process: real frames over pairs of sockets, and servers that follow a script."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import math
import socket
import threading
from typing import TYPE_CHECKING, Any

from server_lies import answer

from langchain_petals.engine.network import CLOSED
from langchain_petals.engine.network.hivemind_parts import (
    ExpertRequest,
    MSGPackSerializer,
    deserialize_torch_tensor,
    serialize_torch_tensor,
)
from langchain_petals.errors import SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import torch

HANDLER = "TransformerConnectionHandler.rpc_inference"


def peer_id(number: int) -> str:
    """Return a peer id by a number below 58."""
    return "12D3KooW" + "A" * 43 + "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[number]


class Exchanges:
    """What a server gets in one session.

    Attributes:
        server: The server.
        metadata: Of each message.
        hidden: Hidden states of each message.
        orders: For each message the order in which the rows go on, as a list; empty if they stay as they are.
        ended: Set when the server has hung up, or the client. A client that is kept waiting for that goes its way, so a
            test has to wait for it, too.
        said_goodbye: Whether the client ended the session.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.metadata: list[dict[str, Any]] = []
        self.hidden: list[torch.Tensor] = []
        self.orders: list[list[int]] = []
        self.ended = threading.Event()
        self.said_goodbye = False

    @property
    def lengths(self) -> list[int]:
        """Tokens of each message."""
        return [hidden.shape[1] for hidden in self.hidden]

    @property
    def max_length(self) -> int:
        """Tokens of attention cache that it reserves."""
        length: int = self.metadata[0]["max_length"]
        return length

    @property
    def waits_for_room(self) -> bool:
        """Whether the server waits for room if its cache is full."""
        return bool(self.metadata[0]["alloc_timeout"])


class ScriptedServer:
    """Adds 1 to the hidden states of each message.

    Args:
        number: Of its peer id.
        start: First block.
        end: Block after the last one.
        speed: Blocks that it claims to run in a second.
        announces: Further fields of its announcement.

    Attributes:
        sessions: What it got, in the order of the connections.
        connecting: Awaited before a connection is there.
        before_reading: Awaited before each message is read.
        answering: Awaited with the exchanges so far before each answer. It may return bytes to send instead of the
            answer; an error, or the end of these bytes, hangs up.
        hanging_up: Awaited between the client's goodbye and the end of the connection.
        compute: Returns the answer to the last message.
    """

    def __init__(self, number: int, start: int, end: int, *, speed: float = 300.0, **announces: Any) -> None:
        self.peer_id, self.start, self.end = peer_id(number), start, end
        details = {"start_block": start, "end_block": end, "inference_rps": speed, "version": "2.2.0.post1"}
        self.announcement = 2, speed, details | announces
        self.sessions: list[Exchanges] = []
        self.connecting: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.before_reading: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.answering: Callable[[Exchanges], Coroutine[Any, Any, AsyncIterator[bytes] | None]] | None = None
        self.hanging_up: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.compute: Callable[[Exchanges], torch.Tensor] = lambda exchanges: exchanges.hidden[-1] + 1

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.connecting is not None:
            await self.connecting()
        ours, theirs = socket.socketpair()
        task = asyncio.create_task(self._serve(*await asyncio.open_unix_connection(sock=theirs)))
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        _connections.append((task, writer))
        return reader, writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchanges = Exchanges(self)
        self.sessions.append(exchanges)
        try:
            with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while await self._serve_one(exchanges, reader, writer):
                    await writer.drain()
        finally:
            exchanges.ended.set()

    async def _serve_one(
        self, exchanges: Exchanges, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if self.before_reading is not None:
            await self.before_reading()
        assert await reader.readexactly(1) == b"\x00"
        request = ExpertRequest.FromString(await reader.readexactly(int.from_bytes(await reader.readexactly(8), "big")))
        if not request.tensors:
            exchanges.said_goodbye = True
            if self.hanging_up is not None:
                await self.hanging_up()
            return False
        hidden, _, order = map(deserialize_torch_tensor, request.tensors)
        exchanges.metadata.append(MSGPackSerializer.loads(request.metadata))
        exchanges.hidden.append(hidden)
        exchanges.orders.append(order.tolist())
        instead = None if self.answering is None else await self.answering(exchanges)
        if instead is None:
            writer.write(answer([serialize_torch_tensor(self.compute(exchanges))]))
            return True
        await send_until_gone(instead, reader, writer)
        return False


async def send_until_gone(
    parts: AsyncIterator[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send parts until there are no more, or the client has hung up."""

    async def send() -> None:
        async for part in parts:
            writer.write(part)
            await writer.drain()

    works = [asyncio.ensure_future(send()), asyncio.ensure_future(_read_to_the_end(reader))]
    await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
    for work in works:
        work.cancel()
    await asyncio.gather(*works, return_exceptions=True)


async def _read_to_the_end(reader: asyncio.StreamReader) -> None:
    while await reader.read(2**16):
        pass


class ScriptedNetwork:
    """Replaces a `Network`.

    Args:
        servers: The servers that are announced.

    Attributes:
        servers: The same by peer id; may be changed.
        readings: How many times the announcements were read.
        reading: Awaited with that number before each.
        is_open: Whether it has not been left.
        round_trips: Seconds by peer id; infinite for others.
        pinged: Peer ids whose round trip was measured.
        info: What servers answer to `rpc_info`, serialized.
    """

    def __init__(self, *servers: ScriptedServer) -> None:
        self.servers = {server.peer_id: server for server in servers}
        self.readings = 0
        self.reading: Callable[[int], Coroutine[Any, Any, None]] | None = None
        self.is_open = True
        self.round_trips: dict[str, float] = {}
        self.pinged: list[str] = []
        self.info = b""
        self._loop = _loop()

    def wait_for(self, work: Coroutine[Any, Any, Any], bound: float) -> Any:
        if not self.is_open:
            work.close()
            raise SwarmUnreachableError(CLOSED)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(bound)
        except concurrent.futures.CancelledError:
            raise SwarmUnreachableError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop)

    async def records(self, keys: Sequence[str]) -> list[tuple[int, Any, Any, float]]:
        self.readings += 1
        if self.reading is not None:
            await self.reading(self.readings)
        return [
            (number, server.peer_id, server.announcement, 1.0)
            for number, key in enumerate(keys)
            for server in self.servers.values()
            if server.start <= int(key.rpartition(".")[2]) < server.end
        ]

    async def round_trip(self, peer_id: str) -> float:
        self.pinged.append(peer_id)
        return self.round_trips.get(peer_id, math.inf)

    async def open_stream(self, peer_id: str, handler: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert handler == HANDLER
        return await self.servers[peer_id].connect()

    async def ask(self, peer_id: str, handler: str, question: Any, answer_type: Any) -> Any:
        assert handler == "TransformerConnectionHandler.rpc_info"
        assert peer_id in self.servers
        del question
        return answer_type(serialized_info=self.info)


_connections: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []  # since the last `hang_up`; on the loop only


def hang_up() -> None:
    """End all connections to servers, at the end of a test."""
    asyncio.run_coroutine_threadsafe(_hang_up(), _loop()).result(30)


async def _hang_up() -> None:
    ending, _connections[:] = list(_connections), []
    for task, writer in ending:
        task.cancel()
        writer.close()
    await asyncio.gather(*(task for task, _ in ending), return_exceptions=True)


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return an event loop that runs until the process ends."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="scripted-swarm", daemon=True).start()
    return loop
