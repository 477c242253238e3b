"""The place of this process in a swarm: one event loop in a thread, with one DHT node in client mode and its p2pd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import math
import os
import selectors
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_petals.engine.network.hivemind_parts import (
    P2P,
    DHTNode,
    Multiaddr,
    PeerID,
    PingRequest,
    StrangersValues,
    ValueWithExpiration,
    p2pd_pb2,
    raise_if_failed,
    read_pbmsg_safe,
    write_pbmsg,
)
from langchain_petals.engine.network.p2pd import P2PDaemon
from langchain_petals.engine.threads import call_at_end, call_in_child, program_ends
from langchain_petals.errors import SwarmUnreachableError, reason_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

logger = logging.getLogger(__name__)

CLOSED = "The swarm that this model was connected to has been closed. Connect to one that runs."

_Result = TypeVar("_Result")

_WORKERS = 32  # keys that are looked up at the same time
_LEAVING_SECONDS = 1.0
_GRACE_SECONDS = 1.0  # that the event loop gets beyond a bound
_PING_SECONDS = 2.0
_NO_SUCH_HANDLER = "protocol not supported"

# Those that have not been left, for the program's end. A network leaves the set when it is garbage-collected.
_networks: weakref.WeakSet[Network] = weakref.WeakSet()


def unreachable(initial_peers: Sequence[str], error: BaseException, timeout: float) -> SwarmUnreachableError:
    """Return the error to raise for a swarm that could not be joined within `timeout` seconds."""
    timed_out = isinstance(error, TimeoutError | asyncio.TimeoutError | concurrent.futures.TimeoutError)
    reason = f"no answer within {timeout:g} s" if timed_out else reason_of(error)
    return SwarmUnreachableError(
        f"Could not join the swarm through its initial peers ({', '.join(initial_peers)}): {reason}. Check "
        "that they are running and that initial_peers holds their full addresses (/ip4/.../tcp/.../p2p/...)."
    )


class Network:
    """A connection to one swarm.

    Its methods may be called from any thread; its coroutines run on its event loop only. It belongs to the process
    that made it: in the child of a fork it is closed, and nothing that the child does with it reaches the parent's.

    Args:
        initial_peers: Multiaddresses of peers through which to join.
        timeout: Seconds to join.

    Raises:
        SwarmUnreachableError: No initial peer could be reached.
    """

    def __init__(self, initial_peers: Sequence[str], timeout: float) -> None:
        self.initial_peers = tuple(initial_peers)
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._is_left = False
        # Not the loop of the program's policy (uvloop's cannot be forked), and no epoll or kqueue, which the child of a
        # fork would share with its parent.
        self._selector = selectors.PollSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._loop.set_exception_handler(_log_debug)
        self._thread = threading.Thread(target=self._loop.run_forever, name="langchain-petals-network", daemon=True)
        self._daemon: P2PDaemon | None = None
        self._p2p: Any = None
        self._node: Any = None
        self._writers: weakref.WeakSet[asyncio.StreamWriter] = weakref.WeakSet()

        async def bounded() -> None:
            await asyncio.wait_for(self._join(timeout), timeout)

        _networks.add(self)
        _leave_all_at_end()
        call_in_child(self, Network._disown)
        try:
            if program_ends():
                msg = "the program ends"
                raise RuntimeError(msg)  # noqa: TRY301 - like the interpreter's own, when a thread is started then
            self._thread.start()
            self._daemon = P2PDaemon(self.initial_peers, timeout + _GRACE_SECONDS)
            self.wait_for(bounded(), timeout + _GRACE_SECONDS)
        except BaseException as error:
            self.leave()
            if isinstance(error, SwarmUnreachableError) or not isinstance(error, Exception):
                raise
            raise unreachable(self.initial_peers, error, timeout) from error  # hivemind raises whatever it meets

    async def _join(self, timeout: float) -> None:
        if self._daemon is None:
            return
        await self._daemon.ready()
        self._p2p = await P2P.replicate(Multiaddr(self._daemon.address))
        self._node = await DHTNode.create(
            p2p=self._p2p,
            initial_peers=self.initial_peers,
            client_mode=True,
            num_workers=_WORKERS,
            wait_timeout=min(3.0, timeout),
            ensure_bootstrap_success=True,
            strict=False,
        )
        self._node.protocol.serializer = StrangersValues

    @property
    def is_open(self) -> bool:
        """Whether this process can use it: it was not left, its p2pd runs, and it is not that of a parent process."""
        if self._process != os.getpid() or self._is_left:
            return False
        # while it joins, p2pd may have ended: `_join` tells why
        return self._daemon is None or self._node is None or self._daemon.is_alive

    def wait_for(self, work: Coroutine[Any, Any, _Result], bound: float) -> _Result:
        """Run a coroutine on the network's event loop, and wait for its result.

        Args:
            work: The coroutine; it is cancelled when the wait ends otherwise.
            bound: Seconds to wait.

        Raises:
            SwarmUnreachableError: The network was left, before or meanwhile.
            TimeoutError: The bound has passed.
        """
        future = self._submit(work)
        if future is None:
            raise SwarmUnreachableError(CLOSED)
        try:
            return future.result(bound)
        except concurrent.futures.CancelledError:
            if self.is_open:
                raise
            raise SwarmUnreachableError(CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine on the network's event loop, and wait for nothing; do nothing if the network was left."""
        self._submit(work)

    def _submit(self, work: Coroutine[Any, Any, _Result]) -> concurrent.futures.Future[_Result] | None:
        if self.is_open:
            with self._lock:  # what is submitted before the network is left is cancelled by that
                if not self._is_left:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        return None

    async def records(self, keys: Sequence[str]) -> list[tuple[int, Any, Any, float]]:
        """Look keys up in the DHT.

        If nothing is found, the initial peers are asked once more: they may have been away, and a node forgets peers
        that give no answer.

        Returns:
            Number of the key, sub-key, value and expiration time of each record.
        """
        records = await self._look_up(keys)
        if not records:
            await self._meet_initial_peers()
            records = await self._look_up(keys)
        return records

    async def _look_up(self, keys: Sequence[str]) -> list[tuple[int, Any, Any, float]]:
        found = await self._node.get_many(keys, math.inf, num_workers=_WORKERS)
        records = []
        for number, key in enumerate(keys):
            entry = found.get(key)
            values = entry.value if entry is not None and isinstance(entry.value, dict) else {}
            records += [
                (number, name, record.value, record.expiration_time)
                for name, record in values.items()
                if isinstance(record, ValueWithExpiration)  # not so in a dictionary that a stranger stored as a whole
            ]
        return records

    async def _meet_initial_peers(self) -> None:
        self._node.blacklist.clear()
        ids = {PeerID.from_base58(Multiaddr(address)["p2p"]) for address in self.initial_peers}
        await asyncio.gather(*(self._node.protocol.call_ping(peer_id, strict=False) for peer_id in ids))

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
        question = p2pd_pb2.Request(
            type=p2pd_pb2.Request.STREAM_OPEN,
            streamOpen=p2pd_pb2.StreamOpenRequest(peer=PeerID.from_base58(peer_id).to_bytes(), proto=[handler]),
        )
        # hivemind's own function leaves the socket open where p2pd cannot connect to the server
        connector = self._p2p._client.control.daemon_connector  # noqa: SLF001 - there is no public way to it
        reader, writer = await connector.open_connection()
        self._writers.add(writer)
        try:
            await write_pbmsg(writer, question)
            answer = p2pd_pb2.Response()
            await read_pbmsg_safe(reader, answer)
            raise_if_failed(answer)
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer

    async def ask(self, peer_id: str, handler: str, question: Any, answer_type: Any) -> Any:
        """Call a handler of a server that takes one message and answers with one."""
        return await self._p2p.call_protobuf_handler(PeerID.from_base58(peer_id), handler, question, answer_type)

    def leave(self) -> None:
        """Leave the swarm: cancel what is still waited for, end the thread and p2pd. May be called twice.

        Servers see the streams end, and free the attention caches. In the child of a fork this does nothing.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._is_left:
                return
            self._is_left = True
        if self._thread.is_alive():
            with contextlib.suppress(concurrent.futures.TimeoutError, TimeoutError):
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_LEAVING_SECONDS)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_GRACE_SECONDS)
        if self._daemon is not None:
            self._daemon.end()
        if not self._loop.is_running():
            self._loop.close()

    async def _end(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:  # callers', and hivemind's own
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
        if self._daemon is not None:
            self._daemon.stop_reading()
        await asyncio.sleep(0)  # the event loop closes the sockets in its next round

    def _disown(self) -> None:
        """In the child of a fork, let go of the connections to p2pd, so that p2pd can see the parent's end.

        Their owners keep their numbers, which lead to nothing from now on.
        """
        if self._daemon is not None:
            self._daemon.disown()
        connections = self._selector.get_map()
        nothing = os.open(os.devnull, os.O_RDWR)
        for connection in [] if self._is_left or connections is None else list(connections.values()):
            os.dup2(nothing, connection.fd, inheritable=False)
        os.close(nothing)


def _log_debug(_: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """Log what asyncio says of tasks that nobody waits for, such as hivemind's."""
    logger.debug("%s", context.get("message"), exc_info=context.get("exception"))


def _leave_all() -> None:
    for network in list(_networks):
        network.leave()


@functools.cache
def _leave_all_at_end() -> None:
    """Register `_leave_all` once, when a swarm is joined: so it runs before the exit functions of modules.

    Servers free the attention caches of sessions whose connection ends. Closing each session would take a round trip.
    """
    call_at_end(_leave_all)
