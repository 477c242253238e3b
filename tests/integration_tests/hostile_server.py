"""A server that joins a swarm, announces all blocks as the fastest, and lies."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

from hivemind.utils.timed_storage import get_dht_time
from scripted_swarm import HANDLER, send_until_gone

from langchain_petals.engine.network.hivemind_parts import (
    P2P,
    DHTNode,
    ExpertRequest,
    MSGPackSerializer,
    PeerID,
    deserialize_torch_tensor,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from server_lies import Lie
    from typing_extensions import Self

    from langchain_petals.swarm import LocalSwarm

_SECONDS = 30.0  # for each call here


class Raw(bytes):
    """A value that is stored in the DHT as these bytes."""


class _Serializer(MSGPackSerializer):  # type: ignore[misc]
    @classmethod
    def dumps(cls, obj: object) -> bytes:
        return bytes(obj) if isinstance(obj, Raw) else super().dumps(obj)


class HostileServer:
    """A peer of a swarm with a handler for sessions; its true answers come from an honest server of all blocks.

    Args:
        swarm: The swarm that it joins; its first server holds all blocks.

    Attributes:
        peer_id: Its peer id, in base 58.
        lie: What it sends instead of an answer; none to be honest.
        truths: How many true answers come first in each session.
        lies: How many times it has lied.
    """

    def __init__(self, swarm: LocalSwarm) -> None:
        self.lie: Lie | None = None
        self.truths = self.lies = 0
        self._swarm, self._honest = swarm, swarm.servers[0]
        self._blocks = self._honest.blocks.stop
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hostile-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait_for(self._join())
        self.announce()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.announce(state=0)
            self._wait_for(self._leave())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def _wait_for(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _join(self) -> None:
        peers = self._swarm.initial_peers
        self._p2p = await P2P.create(initial_peers=peers)
        self._node = await DHTNode.create(p2p=self._p2p, initial_peers=peers)
        self._node.protocol.serializer = _Serializer
        await self._p2p.add_binary_stream_handler(HANDLER, self._serve)
        self.peer_id: str = self._p2p.peer_id.to_base58()

    async def _leave(self) -> None:
        await self._node.shutdown()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._p2p.shutdown()

    def announce(self, *, state: int = 2) -> None:
        """Announce all blocks as the fastest server of all, and the honest one as the slowest."""
        fast = {"start_block": 0, "end_block": self._blocks, "inference_rps": 1e6, "version": "2.3.0.dev2"}
        slow = fast | {"inference_rps": 1.0, "version": "2.2.0.post1"}
        for block in range(self._blocks):
            self.store(block, {self.peer_id: (state, 1e6, fast)})
            # nothing in the DHT is signed; what expires later than the server's own announcement replaces it
            self.store(block, {self._honest.peer_id: (2, 1.0, slow)}, seconds=3600)

    def store(self, block: int, announcements: dict[Any, Any], *, seconds: float = 120) -> None:
        """Store values under a block in the DHT, by the names of those whose announcements they seem to be."""
        names, values = list(announcements), list(announcements.values())
        keys = [f"{self._swarm.dht_prefix}.{block}"] * len(names)
        expires = get_dht_time() + seconds
        self._wait_for(self._node.store_many(keys, values, expiration_time=expires, subkeys=names))

    async def _serve(self, _: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass frames on to the honest server and back, and then lie."""
        _, honest, to_honest = await self._p2p.call_binary_stream_handler(
            PeerID.from_base58(self._honest.peer_id), HANDLER
        )
        answers = 0
        with (
            contextlib.closing(writer),
            contextlib.closing(to_honest),
            contextlib.suppress(asyncio.IncompleteReadError, OSError),
        ):
            while True:
                request = await _frame(reader)
                parsed = ExpertRequest.FromString(request[9:])
                if parsed.tensors and self.lie is not None and answers == self.truths:
                    self.lies += 1
                    await send_until_gone(self.lie(deserialize_torch_tensor(parsed.tensors[0])), reader, writer)
                    return
                to_honest.write(request)
                await to_honest.drain()
                writer.write(await _frame(honest))
                await writer.drain()
                answers += 1


async def _frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(9)
    return head + await reader.readexactly(int.from_bytes(head[1:], "big"))
