"""The messages to and from the servers of a session."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
from typing import TYPE_CHECKING, Any

import pytest
import torch
from scripted_swarm import Exchanges, ScriptedNetwork, ScriptedServer, hang_up
from server_lies import says

from langchain_petals.engine.network import Routes, span_chain, span_stream
from langchain_petals.engine.network.span_chain import SpanChain, SpanError
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

HIDDEN_SIZE = 4
PIECE = 128
SETTINGS = Settings(connect_timeout=10, step_timeout=10)
IMPATIENT = Settings(step_timeout=0.05, seconds_per_token=0)


@pytest.fixture(autouse=True)
def _all_connections_end() -> Iterator[None]:
    yield
    hang_up()


def in_a_row(number: int) -> list[ScriptedServer]:
    """Return servers of two blocks each."""
    return [ScriptedServer(index, 2 * index, 2 * index + 2) for index in range(number)]


def chain_of(servers: Sequence[ScriptedServer], settings: Settings = SETTINGS, **more: Any) -> SpanChain:
    network: Any = ScriptedNetwork(*servers)
    return SpanChain(Routes(network, "model", 2 * len(servers)), 4096, 100, settings, **more)


def hidden_states(tokens: int, rows: int = 1) -> torch.Tensor:
    return torch.arange(rows * tokens * HIDDEN_SIZE, dtype=torch.float32).reshape(rows, tokens, HIDDEN_SIZE)


def test_hidden_states_pass_through_all_servers() -> None:
    servers = in_a_row(2)
    chain = chain_of(servers)
    inputs = hidden_states(5, rows=2)
    assert torch.equal(chain.step(inputs), inputs + 2)
    assert torch.equal(chain.step(inputs[:, :1]), inputs[:, :1] + 2)
    chain.close()
    assert [server.sessions[0].lengths for server in servers] == [[5, 1], [5, 1]]
    assert all(server.sessions[0].ended.wait(30) for server in servers)


def computing_in(dtype: torch.dtype) -> Callable[[Exchanges], torch.Tensor]:
    return lambda exchanges: exchanges.hidden[-1].to(dtype) * 0.3


TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("client", TYPES)
@pytest.mark.parametrize("first", [*TYPES, None, "int8"])
@pytest.mark.parametrize("second", TYPES)
def test_hidden_states_travel_in_the_narrower_of_the_senders_and_the_receivers_type(
    client: str, first: str | None, second: str
) -> None:
    servers = [ScriptedServer(index, 2 * index, 2 * index + 2) for index in range(2)]
    for server, announced in zip(servers, (first, second), strict=True):
        server.announcement[2]["torch_dtype"] = announced
        computed = TYPES.get(announced or "", torch.float32)
        server.compute = computing_in(computed)
    inputs = (hidden_states(5, rows=2) / 7).to(TYPES[client])
    chain = chain_of(servers)
    outputs = chain.step(inputs)
    chain.close()

    middle = inputs.to(TYPES.get(first or "", torch.float32)) * 0.3
    assert torch.equal(outputs, (middle.to(TYPES[second]) * 0.3).to(inputs.dtype))
    [to_first], [to_second] = (server.sessions[0].hidden for server in servers)
    sent = TYPES.get(first or "", inputs.dtype)
    assert to_first.dtype == (inputs.dtype if sent.itemsize >= inputs.dtype.itemsize else sent)
    assert to_second.dtype == (middle.dtype if TYPES[second].itemsize >= middle.itemsize else TYPES[second])


def test_session_metadata_is_in_the_first_message_only() -> None:
    server = ScriptedServer(0, 0, 2)
    chain = chain_of([server])
    chain.step(hidden_states(3))
    chain.step(hidden_states(1))
    chain.roll_back(2)
    chain.step(hidden_states(1))
    chain.step(hidden_states(1))
    chain.close()
    first, *others = server.sessions[0].metadata
    assert first["max_length"] == 4096
    assert first["points"] == 0
    assert first["alloc_timeout"] == 0
    assert set(first) == {"max_length", "alloc_timeout", "points", "session_id"}
    assert others == [{}, {"start_from_position": 2}, {}]


def test_full_servers_can_be_asked_to_wait() -> None:
    server = ScriptedServer(0, 0, 2)
    chain = chain_of([server], wait_for_room=True)
    chain.step(hidden_states(3))
    chain.close()
    assert server.sessions[0].metadata[0]["alloc_timeout"] == SETTINGS.step_timeout / 2


def test_servers_work_on_different_pieces_of_a_long_step() -> None:
    """The first server answers its third piece only after the second server has got a piece."""
    first, second = in_a_row(2)
    second_has_one = asyncio.Event()

    async def wait_for_the_second(exchanges: Exchanges) -> None:
        if len(exchanges.hidden) == 3:
            await second_has_one.wait()

    async def tell(_: Exchanges) -> None:
        second_has_one.set()

    first.answering, second.answering = wait_for_the_second, tell
    chain = chain_of([first, second])
    inputs = hidden_states(2 * PIECE + 5)
    assert torch.equal(chain.step(inputs), inputs + 2)
    chain.close()
    assert first.sessions[0].lengths == second.sessions[0].lengths == [PIECE, PIECE, 5]


def test_pieces_are_as_large_with_many_rows_as_with_one() -> None:
    servers = in_a_row(2)
    chain = chain_of(servers)
    inputs = hidden_states(PIECE, rows=4)
    assert torch.equal(chain.step(inputs), inputs + 2)
    chain.close()
    assert servers[0].sessions[0].lengths == [PIECE // 4] * 4


def test_a_chain_of_one_server_gets_a_long_step_in_one_piece() -> None:
    server = ScriptedServer(0, 0, 2)
    chain = chain_of([server])
    chain.step(hidden_states(3 * PIECE))
    chain.close()
    assert server.sessions[0].lengths == [3 * PIECE]


def test_connections_to_all_servers_open_at_the_same_time() -> None:
    first, second = in_a_row(2)
    second_connects = asyncio.Event()

    async def tell() -> None:
        second_connects.set()

    async def wait_for_the_second() -> None:
        await second_connects.wait()

    first.connecting, second.connecting = wait_for_the_second, tell
    chain = chain_of([first, second])
    chain.step(hidden_states(1))
    chain.close()


@pytest.mark.parametrize("tokens", [1, 3 * PIECE])
def test_error_names_a_server_that_breaks_off(tokens: int) -> None:
    servers = in_a_row(3)

    async def break_off(_: Exchanges) -> None:
        raise ConnectionResetError

    servers[1].answering = break_off
    chain = chain_of(servers)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(tokens))
    span = caught.value.span
    assert (span.start, span.end, span.server.peer_id) == (2, 4, servers[1].peer_id)
    chain.close()
    assert servers[0].sessions[0].ended.wait(30)


def test_error_names_an_unreachable_server_and_other_streams_close() -> None:
    servers = in_a_row(2)

    async def refuse() -> None:
        msg = "no route to host"
        raise OSError(msg)

    servers[0].connecting = refuse
    chain = chain_of(servers)
    with pytest.raises(SpanError, match="no route to host") as caught:
        chain.step(hidden_states(1))
    assert caught.value.span.start == 0
    chain.close()
    assert not any(exchanges.hidden for exchanges in servers[1].sessions)
    assert not caught.value.others


class Silence:
    """Keeps a server from answering until the test ends."""

    def __init__(self, server: ScriptedServer) -> None:
        self._over = asyncio.Event()
        server.answering = self._wait

    async def _wait(self, _: Exchanges) -> None:
        await self._over.wait()

    def end(self, chain: SpanChain) -> None:
        async def end() -> None:
            self._over.set()

        chain._network.wait_for(end(), 30)


def test_server_that_never_answers_fails_after_the_bound() -> None:
    servers = in_a_row(2)
    silence = Silence(servers[0])  # the first one: the other's time would begin with an answer, which may be late
    chain = chain_of(servers, settings=IMPATIENT)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(1))
    assert caught.value.span.start == 0
    assert isinstance(caught.value.__cause__, asyncio.TimeoutError)
    silence.end(chain)
    chain.close()


def test_close_waits_for_the_end_of_the_connection_and_skips_late_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_chain, "_GRACE_SECONDS", 30)
    monkeypatch.setattr(span_stream, "_GOODBYE_SECONDS", 30)
    server = ScriptedServer(0, 0, 2)
    silence = Silence(server)

    async def take_some_turns() -> None:  # of the event loop: who had the late answer only would be through
        for _ in range(1000):
            await asyncio.sleep(0)

    server.hanging_up = take_some_turns
    chain = chain_of([server], settings=IMPATIENT)
    with pytest.raises(SpanError):
        chain.step(hidden_states(1))
    silence.end(chain)
    chain.close()
    assert server.sessions[0].said_goodbye
    assert server.sessions[0].ended.wait(30)


def test_error_names_all_servers_that_cannot_be_reached() -> None:
    servers = in_a_row(4)

    async def refuse() -> None:
        msg = "no route to host"
        raise OSError(msg)

    servers[1].connecting = servers[3].connecting = refuse
    chain = chain_of(servers)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(1))
    assert [error.span.start for error in (caught.value, *caught.value.others)] == [2, 6]
    chain.close()


def test_an_answer_that_the_clients_type_cannot_hold_is_the_failure_of_its_server() -> None:
    first, second = in_a_row(2)
    first.compute = lambda exchanges: exchanges.hidden[-1].float() * 0 + 1e5
    chain = chain_of([first, second])
    with pytest.raises(SpanError, match="larger than 65504") as caught:
        chain.step(hidden_states(1).half())
    assert caught.value.span.start == 0
    assert not second.sessions[0].lengths
    chain.close()


def test_too_many_open_files_are_no_failure_of_a_server() -> None:
    servers = in_a_row(2)

    async def fail() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    servers[1].connecting = fail
    chain = chain_of(servers)
    with pytest.raises(SwarmUnreachableError, match="too many open files"):
        chain.step(hidden_states(1))
    chain.close()


def test_rows_go_on_from_other_rows_on_all_servers() -> None:
    servers = in_a_row(2)
    chain = chain_of(servers)
    chain.step(hidden_states(3, rows=2))
    chain.step(hidden_states(1, rows=2), torch.tensor([1, 1]))
    chain.close()
    assert [server.sessions[0].orders for server in servers] == [[[], [1, 1]]] * 2


@pytest.mark.parametrize(
    ("versions", "can_roll_back"),
    [
        (["2.3.0.dev2", "2.3.0"], True),
        (["2.3.0.dev2", "2.2.0.post1"], False),
        (["2.2.0.post1", "2.3.0.dev2"], False),
        (["2.3.0.dev2", None], False),
        (["2.3.0.dev2", "9" * 90 + ".0"], True),
        (["2.3.0.dev2", "-9.9"], False),
        (["2.3.0.dev2", "2.3 or so"], False),
    ],
)
def test_a_chain_rolls_back_if_all_its_servers_say_that_they_do(
    versions: list[str | None], *, can_roll_back: bool
) -> None:
    servers = [
        ScriptedServer(index, 2 * index, 2 * index + 2, version=version) for index, version in enumerate(versions)
    ]
    assert chain_of(servers).can_roll_back is can_roll_back


@pytest.mark.parametrize(
    ("end", "message"),
    [(SwarmUnreachableError("closed"), "closed"), (concurrent.futures.TimeoutError(), "came to a stop")],
)
def test_a_step_on_a_network_that_ends_is_no_failure_of_a_server(end: Exception, message: str) -> None:
    class Ending(ScriptedNetwork):
        def wait_for(self, work: Coroutine[Any, Any, Any], bound: float) -> Any:
            if self.readings:
                work.close()
                raise end
            return super().wait_for(work, bound)

    network: Any = Ending(*in_a_row(1))
    chain = SpanChain(Routes(network, "model", 2), 4096, 100, SETTINGS)
    with pytest.raises(SwarmUnreachableError, match=message):
        chain.step(hidden_states(1))
    chain.close()


def test_a_server_that_sends_byte_by_byte_has_the_time_of_a_step() -> None:
    server = ScriptedServer(0, 0, 2)

    async def bytes_without_an_end() -> AsyncIterator[bytes]:
        yield b"\x00" + (60_000).to_bytes(8, "big")
        while True:
            yield b"\x00"
            await asyncio.sleep(0)

    async def answer(_: Exchanges) -> AsyncIterator[bytes]:
        return bytes_without_an_end()

    server.answering = answer
    chain = chain_of([server], settings=IMPATIENT)
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(1))
    assert isinstance(caught.value.__cause__, asyncio.TimeoutError)
    chain.close()
    assert server.sessions[0].ended.wait(30)


def test_the_error_of_a_server_is_one_short_line() -> None:
    server = ScriptedServer(0, 0, 2)

    async def answer(exchanges: Exchanges) -> AsyncIterator[bytes]:
        return says("\n\x1b[31mWe\rare\0many " * 1000)(exchanges.hidden[-1])

    server.answering = answer
    chain = chain_of([server])
    with pytest.raises(SpanError) as caught:
        chain.step(hidden_states(1))
    said = str(caught.value.__cause__)
    assert said.startswith("[31mWe are many [31mWe")
    assert said.isprintable()
    assert len(said) <= 500
    chain.close()


def test_a_server_that_does_not_read_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_stream, "_GOODBYE_SECONDS", 0.05)
    server, read_on = ScriptedServer(0, 0, 2), asyncio.Event()

    async def wait() -> None:
        await read_on.wait()

    server.before_reading = wait
    chain = chain_of([server], settings=IMPATIENT)
    [stream] = chain._streams
    with pytest.raises(SpanError):
        chain.step(hidden_states(500_000))  # more than buffers hold
    writer: Any = stream._writer
    chain.close()

    async def turn() -> None:
        await asyncio.sleep(0)

    chain._network.wait_for(turn(), 30)
    assert writer.transport.get_write_buffer_size() == 0
    assert server.sessions[0].hidden == []
