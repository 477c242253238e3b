"""This process's place in a swarm: one event loop in a thread, with one DHT node in client mode and its p2pd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import os
import shutil
import tempfile
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_petals.engine.network.hivemind_parts import P2P, DHTNode, P2PDaemonError, PeerID, PingRequest
from langchain_petals.errors import SwarmUnreachableError, reason_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_WORKERS = 32  # keys that are looked up at the same time
_LEAVING_SECONDS = 2.0
_GRACE_SECONDS = 1.0  # that the event loop gets beyond a bound
_PING_SECONDS = 2.0
_LONGEST_SOCKET_FOLDER = 60  # characters; a socket's whole path may have 103 on macOS, 107 on Linux
_NO_SUCH_HANDLER = "protocol not supported"


class Network:
    """A connection to one swarm.

    Args:
        initial_peers: Multiaddresses of peers through which to join.
        timeout: Seconds to join.

    Raises:
        SwarmUnreachableError: No initial peer could be reached.
    """

    def __init__(self, initial_peers: Sequence[str], timeout: float) -> None:
        self.initial_peers = tuple(initial_peers)
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="langchain-petals-network", daemon=True)
        self._folder = _socket_folder()
        self._started: list[Any] = []  # p2pd processes, also those that never became ready
        self._thread.start()
        try:
            self._node = self.wait_for(self._join(timeout), timeout + _GRACE_SECONDS)
        except (P2PDaemonError, RuntimeError, OSError, asyncio.TimeoutError, concurrent.futures.TimeoutError) as error:
            self.leave()
            raise self._unreachable(error, timeout) from error
        except BaseException:
            self.leave()
            raise

    async def _join(self, timeout: float) -> Any:
        started, prefix = self._started, f"/unix{self._folder}/"

        class _OwnP2P(P2P):  # type: ignore[misc]
            """A p2pd that can be ended even if it never becomes ready, with its sockets in a folder of ours."""

            _UNIX_SOCKET_PREFIX = prefix

            def __init__(self) -> None:
                super().__init__()
                started.append(self)

        p2p = await _OwnP2P.create(
            initial_peers=self.initial_peers, dht_mode="client", startup_timeout=timeout, no_listen=False
        )
        return await DHTNode.create(
            p2p=p2p,
            initial_peers=self.initial_peers,
            client_mode=True,
            num_workers=_WORKERS,
            wait_timeout=min(3.0, timeout),
            ensure_bootstrap_success=True,
            strict=False,
        )

    def _unreachable(self, error: BaseException, timeout: float) -> SwarmUnreachableError:
        reason = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else reason_of(error)
        return SwarmUnreachableError(
            f"Could not join the swarm through its initial peers ({', '.join(self.initial_peers)}): {reason}. Check "
            "that they are running and that initial_peers holds their full addresses (/ip4/.../tcp/.../p2p/...)."
        )

    @property
    def is_open(self) -> bool:
        """Whether this process can use it: it was not left, and is not the parent's after a fork."""
        return self.pid == os.getpid() and not self._loop.is_closed()

    def wait_for(self, work: Coroutine[Any, Any, _Result], bound: float) -> _Result:
        """Run a coroutine on the network's event loop, and wait for its result.

        Args:
            work: The coroutine; it is cancelled when the wait ends otherwise.
            bound: Seconds to wait.

        Raises:
            SwarmUnreachableError: The network has been left.
            TimeoutError: The bound has passed.
        """
        if not self.is_open:
            work.close()
            msg = "The swarm that this model was connected to has been closed. Connect to one that runs."
            raise SwarmUnreachableError(msg)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(bound)
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the network's event loop, and wait for nothing."""
        if self.is_open:
            asyncio.run_coroutine_threadsafe(work, self._loop)
        else:
            work.close()

    async def records(self, keys: Sequence[str]) -> list[tuple[int, Any, Any, float]]:
        """Look keys up in the DHT.

        Returns:
            Number of the key, sub-key, value and expiration time of each record.
        """
        found = await self._node.get_many(keys, math.inf, num_workers=_WORKERS)
        records = []
        for number, key in enumerate(keys):
            entry = found.get(key)
            values = entry.value if entry is not None and isinstance(entry.value, dict) else {}
            records += [(number, name, record.value, record.expiration_time) for name, record in values.items()]
        return records

    async def round_trip(self, peer_id: str) -> float:
        """Return the seconds that a server takes to answer; infinite if it gives no answer."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            stub = self._node.protocol.get_stub(PeerID.from_base58(peer_id))
            await stub.rpc_ping(PingRequest(peer=self._node.protocol.node_info), timeout=_PING_SECONDS)
        except Exception as error:  # noqa: BLE001 - hivemind raises whatever p2pd said
            if _NO_SUCH_HANDLER not in str(error):  # a server behind a relay is a DHT client: that was an answer
                return math.inf
        return loop.time() - begun

    async def open_stream(self, peer_id: str, handler: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a stream to a handler of a server."""
        _, reader, writer = await self._node.p2p.call_binary_stream_handler(PeerID.from_base58(peer_id), handler)
        return reader, writer

    async def ask(self, peer_id: str, handler: str, question: Any, answer_type: Any) -> Any:
        """Call a handler of a server that takes one message and answers with one."""
        return await self._node.p2p.call_protobuf_handler(PeerID.from_base58(peer_id), handler, question, answer_type)

    def leave(self) -> None:
        """Leave the swarm, end p2pd and the thread; what is still waited for is cancelled. May be called twice.

        In the child of a fork this only forgets: process and sockets are the parent's.
        """
        if not self.is_open:
            return
        with contextlib.suppress(concurrent.futures.TimeoutError, TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_LEAVING_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GRACE_SECONDS)
        if not self._loop.is_running():
            self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _end(self) -> None:
        if getattr(self, "_node", None) is not None:
            await self._node.shutdown()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:  # hivemind leaves some of its own
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for p2p in self._started:
            await p2p.shutdown()


def _socket_folder() -> str:
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="petals-", dir=usual if len(usual) <= _LONGEST_SOCKET_FOLDER else "/tmp")  # noqa: S108
