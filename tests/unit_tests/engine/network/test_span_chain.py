"""The messages to and from the servers of a session."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from langchain_petals.engine.network import span_chain
from langchain_petals.engine.network.span_chain import SpanChain, SpanError
from langchain_petals.engine.settings import Settings
from langchain_petals.petals_compat import load_petals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

HIDDEN_SIZE = 4
PIECE = 128
SETTINGS = Settings(connect_timeout=10, step_timeout=10)
IMPATIENT = Settings(step_timeout=0.05, seconds_per_token=0)


class ScriptedServer:
    """Adds 1 to the hidden states of each message; speaks hivemind's frames over a pair of sockets.

    Args:
        start: The first of its two blocks.

    Attributes:
        lengths: Tokens of each message.
        metadata: Of each message.
        connecting: Awaited before a connection is there.
        answering: Awaited with the number of messages so far before each answer.
        hanging_up: Awaited between the client's goodbye and the end of the connection.
        ended: Set when the server has hung up after the client's goodbye. A client that is kept waiting for that goes
            its way, so a test has to wait for it, too.
    """

    def __init__(self, start: int) -> None:
        self.span = SimpleNamespace(start=start, end=start + 2, peer_id=f"server of {start}")
        self.lengths: list[int] = []
        self.metadata: list[dict[str, Any]] = []
        self.connecting: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.answering: Callable[[int], Coroutine[Any, Any, None]] | None = None
        self.hanging_up: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.ended = threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> tuple[None, asyncio.StreamReader, asyncio.StreamWriter]:
        if self.connecting is not None:
            await self.connecting()
        ours, theirs = socket.socketpair()
        self._task = asyncio.create_task(self._serve(*await asyncio.open_unix_connection(sock=theirs)))
        return None, *await asyncio.open_unix_connection(sock=ours)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        api = load_petals()
        with (
            contextlib.closing(writer),
            contextlib.suppress(asyncio.IncompleteReadError, OSError),
        ):  # the client is gone
            while True:
                request, _ = await api.p2p.receive_protobuf(api.runtime_pb2.ExpertRequest, reader)
                if not request.tensors:
                    if self.hanging_up is not None:
                        await self.hanging_up()
                    self.ended.set()
                    return
                hidden = api.hivemind.deserialize_torch_tensor(request.tensors[0])
                self.lengths.append(hidden.shape[1])
                self.metadata.append(api.hivemind.MSGPackSerializer.loads(request.metadata))
                if self.answering is not None:
                    await self.answering(len(self.lengths))
                tensors = [api.hivemind.serialize_torch_tensor(hidden + 1)]
                await api.p2p.send_protobuf(api.runtime_pb2.ExpertResponse(tensors=tensors), writer)


class ScriptedRoutes:
    """Routes with a single chain of servers."""

    def __init__(self, servers: list[ScriptedServer]) -> None:
        self._servers = {server.span.peer_id: server for server in servers}
        self.successes: list[str] = []
        self.manager = SimpleNamespace(
            block_uids=[f"model.{block}" for block in range(2 * len(servers))],
            state=SimpleNamespace(p2p=SimpleNamespace(call_binary_stream_handler=self._connect)),
            get_request_metadata=lambda *_: {"points": 3},
        )

    async def _connect(self, peer_id: str, handle: str) -> Any:
        assert handle == "TransformerConnectionHandler.rpc_inference"
        return await self._servers[peer_id].connect()

    def choose(self, max_length: int, timeout: float) -> list[Any]:
        del max_length, timeout
        return [server.span for server in self._servers.values()]

    def report_success(self, peer_id: str) -> None:
        self.successes.append(peer_id)


def chain_of(*servers: ScriptedServer, settings: Settings = SETTINGS, **more: Any) -> SpanChain:
    routes: Any = ScriptedRoutes(list(servers))
    return SpanChain(routes, 4096, settings, **more)


def hidden_states(tokens: int, rows: int = 1) -> torch.Tensor:
    return torch.arange(rows * tokens * HIDDEN_SIZE, dtype=torch.float32).reshape(rows, tokens, HIDDEN_SIZE)


def test_hidden_states_pass_through_all_servers() -> None:
    servers = [ScriptedServer(0), ScriptedServer(2)]
    chain = chain_of(*servers)
    inputs = hidden_states(5, rows=2)
    assert torch.equal(chain.step(inputs), inputs + 2)
    assert torch.equal(chain.step(inputs[:, :1]), inputs[:, :1] + 2)
    assert chain.position == 6
    chain.close()
    assert [server.lengths for server in servers] == [[5, 1], [5, 1]]
    assert all(server.ended.wait(30) for server in servers)


def test_session_metadata_is_in_the_first_message_only() -> None:
    server = ScriptedServer(0)
    chain = chain_of(server)
    chain.step(hidden_states(3))
    chain.step(hidden_states(1))
    chain.roll_back(2)
    chain.step(hidden_states(1))
    chain.step(hidden_states(1))
    chain.close()
    first, *others = server.metadata
    assert first["max_length"] == 4096
    assert first["points"] == 3
    assert first["alloc_timeout"] == 0
    assert set(first) == {"max_length", "alloc_timeout", "points", "session_id", "args_structure"}
    assert others == [{}, {"start_from_position": 2}, {}]


def test_full_servers_can_be_asked_to_wait() -> None:
    server = ScriptedServer(0)
    chain = chain_of(server, wait_for_room=True)
    chain.step(hidden_states(3))
    chain.close()
    assert server.metadata[0]["alloc_timeout"] == SETTINGS.step_timeout / 2


def test_servers_work_on_different_pieces_of_a_long_step() -> None:
    """The first server answers its third piece only after the second server has got a piece."""
    first, second = ScriptedServer(0), ScriptedServer(2)
    second_has_one = asyncio.Event()

    async def wait_for_the_second(messages: int) -> None:
        if messages == 3:
            await second_has_one.wait()

    async def tell(messages: int) -> None:
        del messages
        second_has_one.set()

    first.answering, second.answering = wait_for_the_second, tell
    chain = chain_of(first, second)
    inputs = hidden_states(2 * PIECE + 5)
    assert torch.equal(chain.step(inputs), inputs + 2)
    assert chain.position == 2 * PIECE + 5
    chain.close()
    assert first.lengths == second.lengths == [PIECE, PIECE, 5]


def test_pieces_are_as_large_with_many_rows_as_with_one() -> None:
    servers = [ScriptedServer(0), ScriptedServer(2)]
    chain = chain_of(*servers)
    inputs = hidden_states(PIECE, rows=4)
    assert torch.equal(chain.step(inputs), inputs + 2)
    chain.close()
    assert servers[0].lengths == [PIECE // 4] * 4


def test_a_chain_of_one_server_gets_a_long_step_in_one_piece() -> None:
    server = ScriptedServer(0)
    chain = chain_of(server)
    chain.step(hidden_states(3 * PIECE))
    chain.close()
    assert server.lengths == [3 * PIECE]


def test_connections_to_all_servers_open_at_the_same_time() -> None:
    first, second = ScriptedServer(0), ScriptedServer(2)
    second_connects = asyncio.Event()

    async def tell() -> None:
        second_connects.set()

    async def wait_for_the_second() -> None:
        await second_connects.wait()

    first.connecting, second.connecting = wait_for_the_second, tell
    chain = chain_of(first, second)
    chain.step(hidden_states(1))
    chain.close()


@pytest.mark.parametrize("tokens", [1, 3 * PIECE])
def test_error_names_a_server_that_breaks_off(tokens: int) -> None:
    servers = [ScriptedServer(0), ScriptedServer(2), ScriptedServer(4)]

    async def break_off(messages: int) -> None:
        del messages
        raise asyncio.CancelledError

    servers[1].answering = break_off
    chain = chain_of(*servers)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(tokens))
    assert (caught.value.start, caught.value.end, caught.value.peer_id) == (2, 4, "server of 2")
    chain.close()
    assert servers[0].ended.wait(30)


def test_error_names_an_unreachable_server_and_other_streams_close() -> None:
    servers = [ScriptedServer(0), ScriptedServer(2)]

    async def refuse() -> None:
        msg = "no route to host"
        raise OSError(msg)

    servers[0].connecting = refuse
    chain = chain_of(*servers)
    with pytest.raises(SpanError, match="no route to host") as caught:
        chain.step(hidden_states(1))
    assert caught.value.start == 0
    chain.close()
    assert not servers[1].lengths


class Silence:
    """Keeps a server from answering until the test ends."""

    def __init__(self, server: ScriptedServer) -> None:
        self._over = asyncio.Event()
        server.answering = self._wait

    async def _wait(self, messages: int) -> None:
        del messages
        await self._over.wait()

    def end(self) -> None:
        async def end() -> None:
            self._over.set()

        load_petals().worker.run_coroutine(end())


def test_server_that_never_answers_fails_after_the_bound() -> None:
    servers = [ScriptedServer(0), ScriptedServer(2)]
    silence = Silence(servers[0])  # the first one: the other's time would begin with an answer, which may be late
    chain = chain_of(*servers, settings=IMPATIENT)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(1))
    assert caught.value.start == 0
    assert isinstance(caught.value.__cause__, asyncio.TimeoutError)
    silence.end()
    chain.close()


def test_close_waits_for_the_end_of_the_connection_and_skips_late_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_chain, "_GRACE", 30)
    server = ScriptedServer(0)
    silence = Silence(server)

    async def take_some_turns() -> None:  # of the event loop: who had the late answer only would be through
        for _ in range(1000):
            await asyncio.sleep(0)

    server.hanging_up = take_some_turns
    chain = chain_of(server, settings=IMPATIENT)
    with pytest.raises(SpanError):
        chain.step(hidden_states(1))
    silence.end()
    chain.close()
    assert server.ended.is_set()
