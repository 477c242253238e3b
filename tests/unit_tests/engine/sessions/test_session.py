"""A session continues when its servers fail: the tokens that each server is fed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
import torch
from scripted_swarm import Exchanges, ScriptedNetwork, ScriptedServer, hang_up
from server_lies import CLAIMS, FULL, NO_ANSWERS, SILENCE, short_of_room

from langchain_petals.engine.network import CacheLimitError, Routes, routes, span_stream
from langchain_petals.engine.sessions.session import SwarmSession
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import BlocksMissingError, SpanFailedError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from server_lies import Lie

VOCABULARY = 64
BLOCKS = 5
AT_ONCE = Settings(longest_pause=0)
GONE = NO_ANSWERS["hanging up"]


class Parts:
    """The part of a model in this process: hidden states are token ids, and logits are what servers answer."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        if ids.max() >= VOCABULARY:
            raise IndexError
        hidden = torch.zeros(*ids.shape, VOCABULARY)
        hidden[:, :, 0] = ids
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def seen_tokens(exchanges: Exchanges) -> torch.Tensor:
    """Return the tokens that the server of a session has in its attention cache, shape (rows, tokens)."""
    rows: torch.Tensor | None = None
    for metadata, order, hidden in zip(exchanges.metadata, exchanges.orders, exchanges.hidden, strict=True):
        if rows is None:
            rows = hidden[:, :0, 0]
        rows = rows[order] if order else rows
        rows = torch.cat([rows[:, : metadata.get("start_from_position")], hidden[:, :, 0]], dim=1)
    assert rows is not None
    return rows


class Swarm:
    """Servers of a model of 5 blocks: one for the first two, which never fails, and some for the other three.

    The model's logits for a position are the tokens that the last server has seen up to there, then zeros.

    Args:
        lies: What the last servers send instead of an answer, by the number of the step, counted over all of them; the
            one at -1 is sent at each step.
        replicas: Number of the last servers; in the order in which they are preferred.
        announces: Fields of their announcements.

    Attributes:
        opened: The sessions on the last servers, in the order of their start.
    """

    def __init__(self, lies: dict[int, Lie] | None = None, *, replicas: int = 5, **announces: Any) -> None:
        self.lies, self.steps = lies or {}, 0
        self.opened: list[Exchanges] = []
        self.first = ScriptedServer(30, 0, 2, **announces)
        self.first.compute = lambda exchanges: exchanges.hidden[-1]
        self.servers = [
            ScriptedServer(number, 2, BLOCKS, speed=9000 - number, **announces) for number in range(replicas)
        ]
        for server in self.servers:
            server.answering, server.compute = self._answer, self._tokens_so_far
        self.network = ScriptedNetwork(self.first, *self.servers)
        network: Any = self.network
        self.routes = Routes(network, "model", BLOCKS)

    async def _answer(self, exchanges: Exchanges) -> AsyncIterator[bytes] | None:
        if exchanges not in self.opened:
            self.opened.append(exchanges)
        lie = self.lies.get(self.steps, self.lies.get(-1))
        self.steps += 1
        return None if lie is None else lie(exchanges.hidden[-1])

    @staticmethod
    def _tokens_so_far(exchanges: Exchanges) -> torch.Tensor:
        seen = seen_tokens(exchanges)
        hidden = torch.zeros_like(exchanges.hidden[-1])
        new = hidden.shape[1]
        for number in range(new):
            length = seen.shape[1] - new + number + 1
            hidden[:, number, :length] = seen[:, :length]
        return hidden

    def fed(self, session: int) -> list[list[list[int]]]:
        """Return the tokens of each row in each message of a session on a last server."""
        return [hidden[:, :, 0].long().tolist() for hidden in self.opened[session].hidden]

    @property
    def used(self) -> list[int]:
        """For each session the number of the last server."""
        return [self.servers.index(exchanges.server) for exchanges in self.opened]

    @property
    def banned(self) -> list[int]:
        """Numbers of the last servers that were banned, in that order."""
        numbers = {server.peer_id: number for number, server in enumerate(self.servers)}
        return [numbers[peer_id] for peer_id in self.routes._banned]

    def closed(self) -> bool:
        """Wait until all sessions have ended."""
        return all(exchanges.ended.wait(30) for exchanges in (*self.opened, *self.first.sessions))


@pytest.fixture(autouse=True)
def _all_connections_end() -> Iterator[None]:
    yield
    hang_up()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_FIRST_PAUSE", 0)
    monkeypatch.setattr(span_stream, "_GOODBYE_SECONDS", 0.2)  # that a client waits for a silent server


def opened(
    swarm: Swarm, settings: Settings = AT_ONCE, *, needed: int = 20, max_length: int = 40, **more: Any
) -> SwarmSession:
    parts: Any = Parts()
    return SwarmSession(parts, swarm.routes, needed=needed, max_length=max_length, settings=settings, **more)


def fed(session: SwarmSession, *steps: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Feed a session; return the tokens of each row that the servers have seen after each step."""
    seen = []
    for step in steps:
        logits = session.extend(torch.tensor(step))[:, -1]
        assert logits.shape == (len(step), VOCABULARY)
        assert session.ids == logits[0].long()[: session.position].tolist()
        seen.append(logits.long()[:, : session.position].tolist())
    return seen


STEPS = ([[1, 2, 3], [4, 5, 6]], [[7], [8]], [[9], [10]])
SEEN = [
    [[1, 2, 3], [4, 5, 6]],
    [[1, 2, 3, 7], [4, 5, 6, 8]],
    [[1, 2, 3, 7, 9], [4, 5, 6, 8, 10]],
]


def test_no_token_is_sent_twice() -> None:
    swarm = Swarm()
    assert fed(opened(swarm), *STEPS) == SEEN
    [exchanges] = swarm.opened
    assert swarm.fed(0) == list(STEPS)
    assert exchanges.max_length == 40
    assert swarm.network.readings == 1


def test_no_chain_is_opened_before_the_first_step() -> None:
    swarm = Swarm()
    session = opened(swarm)
    assert (session.position, session.ids) == (0, [])
    session.close()
    assert not swarm.network.readings
    assert not swarm.first.sessions


@pytest.mark.parametrize("rows", [1, 2])
def test_long_input_is_sent_in_chunks(rows: int) -> None:
    swarm = Swarm()
    tokens = [list(range(1, 11))] * rows
    assert fed(opened(swarm, Settings(prefill_chunk_tokens=4)), tokens) == [tokens]
    assert swarm.opened[0].lengths == ([4, 4, 2] if rows == 1 else [2] * 5)


# ---- logits for several positions

POISON = 1e9
VERIFIED = [7, 8, 9]
"""Tokens of a step for each of which logits are wanted."""


def so_far(*steps: Sequence[int]) -> list[list[int]]:
    """Return what the servers have seen at each position of the last step."""
    whole = [token for step in steps for token in step]
    return [whole[: length + 1] for length in range(len(whole) - len(steps[-1]), len(whole))]


def verified(session: SwarmSession, ids: Sequence[int], last: int) -> list[list[int]]:
    """Feed a session of one row, and return what the servers have seen at each of the last positions."""
    logits = session.extend(torch.tensor([ids]), last=last)
    assert logits.shape == (1, last, VOCABULARY)
    lengths = range(session.position - last + 1, session.position + 1)
    return [row[:length] for row, length in zip(logits[0].long().tolist(), lengths, strict=True)]


@pytest.mark.parametrize("last", range(1, 4))
def test_the_last_positions_of_a_step_have_logits(last: int) -> None:
    session = opened(Swarm())
    session.extend(torch.tensor([[1, 2]]))
    assert verified(session, VERIFIED, last) == so_far([1, 2], VERIFIED)[-last:]


@pytest.mark.parametrize("last", range(1, 11))
@pytest.mark.parametrize("chunk", [1, 3, 4, 10])
def test_the_last_positions_of_a_step_in_chunks_have_logits(last: int, chunk: int) -> None:
    swarm, tokens = Swarm(), list(range(1, 11))
    session = opened(swarm, Settings(prefill_chunk_tokens=chunk))
    assert verified(session, tokens, last) == so_far(tokens)[-last:]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
@pytest.mark.parametrize("order", [None, [1, 0]], ids=str)
def test_all_rows_have_logits_for_several_positions(chunk: int, order: list[int] | None) -> None:
    session = opened(Swarm(), Settings(prefill_chunk_tokens=2 * chunk))
    session.extend(torch.tensor([[1, 2], [3, 4]]))
    rows = torch.tensor([[5, 6, 7], [8, 9, 10]])
    logits = session.extend(rows, None if order is None else torch.tensor(order), last=2)
    before = [[1, 2], [3, 4]] if order is None else [[3, 4], [1, 2]]
    for row in range(2):
        expected = so_far(before[row], rows[row].tolist())[-2:]
        assert [each[: len(seen)] for each, seen in zip(logits[row].long().tolist(), expected, strict=True)] == expected


@pytest.mark.parametrize("failures", range(1, 4))
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 100])
def test_a_step_has_all_its_logits_after_a_replay(failures: int, chunk: int) -> None:
    swarm = Swarm()
    session = opened(swarm, Settings(prefill_chunk_tokens=chunk, longest_pause=0))
    session.extend(torch.tensor([[1, 2, 3, 4]]))
    # all that comes next fails so often: each attempt fails at its first step
    swarm.lies = dict.fromkeys(range(swarm.steps, swarm.steps + failures), GONE)
    assert verified(session, VERIFIED, 3) == so_far([1, 2, 3, 4], VERIFIED)
    assert swarm.used == list(range(failures + 1))


@pytest.mark.parametrize("position", range(3))
def test_numbers_that_are_not_finite_are_found_at_each_position(position: int) -> None:
    """The servers' numbers are checked as they come; these become infinite only in the norm or the head."""

    class Norm(Parts):
        def logits(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden.masked_fill(hidden == POISON, float("inf"))

    def poisoned(exchanges: Exchanges) -> torch.Tensor:
        hidden = torch.zeros_like(exchanges.hidden[-1])
        hidden[:, position] = POISON
        return hidden

    swarm = Swarm()
    parts: Any = Norm()
    swarm.servers[0].compute = poisoned
    session = SwarmSession(parts, swarm.routes, needed=20, max_length=20, settings=AT_ONCE)
    assert verified(session, VERIFIED, 3) == so_far(VERIFIED)
    assert swarm.banned == [0]


# ---- tokens are forgotten


def test_a_session_can_roll_back_where_all_servers_of_its_chain_can() -> None:
    for first, last, expected in [("2.3.0", "2.3.0", True), ("2.2.0.post1", "2.3.0", False), ("2.3.0", "2.2.0", False)]:
        swarm = Swarm(version=last)
        swarm.first.announcement[2]["version"] = first
        session = opened(swarm)
        assert not session.can_roll_back  # no server is known yet
        session.extend(torch.tensor([[1]]))
        assert session.can_roll_back is expected
        assert opened(swarm).can_roll_back is expected  # it will be on one of these servers


def test_a_first_step_can_be_rolled_back_where_a_server_without_roll_back_has_joined() -> None:
    swarm = Swarm(version="2.3.0.dev2")
    swarm.routes.refresh(5)
    session = opened(swarm)
    assert session.can_roll_back
    for server in swarm.servers:
        server.announcement[2]["version"] = "2.2.0.post1"
    swarm.routes.refresh(5)
    assert verified(session, [1, 2, 3], 2) == so_far([1, 2, 3])[-2:]
    session.roll_back(2)
    assert fed(session, [[7]]) == [[[1, 2, 7]]]
    assert len(swarm.opened) == 2


@pytest.mark.parametrize("kept", range(3, 6))
def test_a_session_goes_on_where_it_was_rolled_back_to(kept: int) -> None:
    swarm = Swarm(version="2.3.0.dev2")
    session = opened(swarm)
    fed(session, [[1, 2, 3]])
    session.extend(torch.tensor([[4, 5]]), last=2)
    session.roll_back(kept)
    assert session.ids == [1, 2, 3, 4, 5][:kept]
    assert fed(session, [[7, 8]]) == [[[*[1, 2, 3, 4, 5][:kept], 7, 8]]]
    assert swarm.fed(0)[-1] == [[7, 8]]
    assert swarm.opened[0].metadata[-1].get("start_from_position", kept) == kept
    assert len(swarm.opened) == 1


def test_a_second_roll_back_before_the_next_step_counts() -> None:
    session = opened(Swarm(version="2.3.0.dev2"))
    fed(session, [[1, 2, 3, 4, 5]])
    session.roll_back(4)
    session.resume(2, 20)
    assert fed(session, [[7]]) == [[[1, 2, 7]]]


@pytest.mark.parametrize("step", [1, 2])
def test_a_roll_back_is_not_lost_when_a_server_fails(step: int) -> None:
    swarm = Swarm({step: GONE}, version="2.3.0.dev2")
    session = opened(swarm)
    fed(session, [[1, 2, 3]])
    assert verified(session, VERIFIED, 3) == so_far([1, 2, 3], VERIFIED)
    session.roll_back(4)
    assert fed(session, [[11]], [[12]]) == [[[1, 2, 3, 7, 11]], [[1, 2, 3, 7, 11, 12]]]
    assert swarm.used == [0, 1]


def test_servers_that_cannot_roll_back_and_have_replaced_others_are_fed_anew() -> None:
    swarm = Swarm({1: GONE}, version="2.3.0.dev2")
    swarm.servers[1].announcement[2]["version"] = "2.2.0.post1"
    session = opened(swarm)
    fed(session, [[1, 2, 3]])
    could = [session.can_roll_back]
    assert verified(session, VERIFIED, 3) == so_far([1, 2, 3], VERIFIED)
    could.append(session.can_roll_back)
    session.roll_back(4)
    could.append(session.can_roll_back)
    assert could == [True, False, False]  # at the end there is no chain, and the next one may be of either kind
    assert fed(session, [[11]]) == [[[1, 2, 3, 7, 11]]]
    assert swarm.used == [0, 1, 1]
    assert swarm.fed(2) == [[[1, 2, 3, 7, 11]]]
    assert swarm.opened[1].said_goodbye
    assert swarm.banned == [0]


# ---- a server fails


@pytest.mark.parametrize("step", range(3))
def test_all_tokens_are_fed_to_another_server(caplog: pytest.LogCaptureFixture, step: int) -> None:
    swarm = Swarm({step: GONE})
    assert fed(opened(swarm), *STEPS) == SEEN
    assert swarm.used == [0, 1]
    assert swarm.fed(1) == [SEEN[step], *STEPS[step + 1 :]]
    assert swarm.opened[0].ended.wait(30)
    assert swarm.first.sessions[0].ended.wait(30)
    assert swarm.banned == [0]
    assert swarm.network.readings == 2
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"Blocks 2:5 on {swarm.servers[0].peer_id} failed, going around it: ")
    assert "the server hung up" in record.message


@pytest.mark.parametrize("step", range(1, 3))
def test_rows_that_go_on_from_others_are_fed_so_to_another_server(step: int) -> None:
    swarm = Swarm({step: GONE})
    session = opened(swarm)
    fed(session, STEPS[0])
    session.extend(torch.tensor([[7], [8]]), torch.tensor([1, 1]))
    logits = session.extend(torch.tensor([[9], [10]]), torch.tensor([1, 0]))[:, -1]
    assert logits.long()[:, :5].tolist() == [[4, 5, 6, 8, 9], [4, 5, 6, 7, 10]]
    assert swarm.used == [0, 1]


@pytest.mark.parametrize("step", range(6))
def test_failure_within_a_long_input_feeds_all_of_it_again(step: int) -> None:
    swarm = Swarm({step: GONE})
    tokens = [list(range(1, 11))]
    session = opened(swarm, Settings(prefill_chunk_tokens=2, longest_pause=0))
    assert fed(session, tokens, [[11]]) == [tokens, [[*tokens[0], 11]]]


def test_several_servers_may_fail_one_after_the_other() -> None:
    swarm = Swarm({0: GONE, 1: GONE, 2: GONE})
    session = opened(swarm)
    assert fed(session, *STEPS) == SEEN
    assert swarm.used == [0, 1, 2, 3]
    assert swarm.banned == [0, 1, 2]
    session.close()
    assert swarm.closed()


def test_servers_that_cannot_be_reached_are_left_out_together() -> None:
    async def refuse() -> None:
        raise ConnectionRefusedError

    swarm = Swarm()
    swarm.servers[0].connecting = swarm.first.connecting = refuse
    spare = ScriptedServer(31, 0, 2, speed=1)
    spare.compute = swarm.first.compute
    swarm.network.servers[spare.peer_id] = spare
    assert fed(opened(swarm, Settings(max_retries=1)), *STEPS) == SEEN
    assert set(swarm.routes._banned) == {swarm.first.peer_id, swarm.servers[0].peer_id}


def test_attempts_are_counted_again_after_each_step_that_worked() -> None:
    swarm = Swarm({0: GONE, 2: GONE, 4: GONE})
    assert fed(opened(swarm, Settings(max_retries=1)), *STEPS) == SEEN


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_failing_step_is_given_up_after_max_retries(max_retries: int, caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm({-1: GONE}, replicas=1)
    session = opened(swarm, Settings(max_retries=max_retries, longest_pause=0))
    with pytest.raises(
        SpanFailedError, match=r"Blocks 2:5 failed \d time\(s\).*ConnectionResetError: the server hung up"
    ) as got:
        session.extend(torch.tensor([[1]]))
    assert (got.value.start, got.value.end, got.value.attempts) == (2, 5, max_retries + 1)
    assert isinstance(got.value.__cause__, ConnectionResetError)
    assert len(swarm.opened) == max_retries + 1
    assert swarm.closed()
    [record] = caplog.records  # once for a ban, and nobody is gone around
    assert "failed, and there is no way around it: " in record.message


def test_pauses_grow_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=pauses.append))
    session = opened(Swarm({-1: GONE}), Settings(max_retries=7, longest_pause=5))
    with pytest.raises(SpanFailedError):
        session.extend(torch.tensor([[1]]))
    assert pauses == [0, 0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize("failures", [1, 2])
def test_routes_are_asked_for_again_if_the_dht_does_not_answer(failures: int) -> None:
    swarm = Swarm()

    async def fail(reading: int) -> None:
        if reading <= failures:
            raise OSError

    swarm.network.reading = fail
    assert fed(opened(swarm), *STEPS) == SEEN


def test_error_about_routes_is_raised_after_the_last_attempt() -> None:
    swarm = Swarm()

    async def fail(_: int) -> None:
        msg = "no peers"
        raise OSError(msg)

    swarm.network.reading = fail
    with pytest.raises(SwarmUnreachableError, match="no peers"):
        opened(swarm).extend(torch.tensor([[1]]))
    assert swarm.network.readings == 4


def test_servers_that_join_are_waited_for() -> None:
    swarm = Swarm()
    joining = {server.peer_id: swarm.network.servers.pop(server.peer_id) for server in swarm.servers}

    async def let_them_join(reading: int) -> None:
        if reading == 3:
            swarm.network.servers |= joining

    swarm.network.reading = let_them_join
    assert fed(opened(swarm, Settings(max_retries=0)), *STEPS) == SEEN


def test_blocks_without_servers_are_an_error_that_is_not_retried() -> None:
    swarm = Swarm(replicas=0)
    with pytest.raises(BlocksMissingError) as caught:
        opened(swarm, Settings(connect_timeout=0.05)).extend(torch.tensor([[1]]))
    assert caught.value.blocks == (2, 3, 4)


def test_other_errors_are_not_retried_and_close_the_chain() -> None:
    swarm = Swarm()
    session = opened(swarm)
    fed(session, STEPS[0])
    with pytest.raises(IndexError):
        session.extend(torch.tensor([[VOCABULARY], [0]]))
    assert swarm.network.readings == 1
    assert swarm.closed()


def test_a_step_on_a_swarm_that_is_closed_is_no_failure_of_a_server(caplog: pytest.LogCaptureFixture) -> None:
    """Its servers end in the middle of a step, and only then the step ends."""
    swarm = Swarm({1: GONE})
    session = opened(swarm)
    fed(session, STEPS[0])
    swarm.routes.close()
    with pytest.raises(SwarmUnreachableError, match="has been closed"):
        session.extend(torch.tensor(STEPS[1]))
    assert not swarm.banned
    assert not caplog.records


# ---- a server lies


@pytest.mark.parametrize("lie", [*NO_ANSWERS, *CLAIMS])
@pytest.mark.parametrize("step", [0, 1, 3], ids=["first step", "prefill", "mid-answer"])
def test_a_server_that_lies_is_gone_around(lie: str, step: int, caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm({step: (NO_ANSWERS | CLAIMS)[lie]})
    session = opened(swarm, Settings(prefill_chunk_tokens=4, longest_pause=0))
    assert fed(session, *STEPS) == SEEN
    assert swarm.used == [0, 1]
    assert swarm.banned == [0]
    [record] = caplog.records
    assert "going around it" in record.message
    assert "\n" not in record.message
    assert len(record.message) < 500
    session.close()
    assert swarm.closed()


@pytest.mark.parametrize("lie", [*NO_ANSWERS, *CLAIMS])
def test_a_server_that_lies_without_a_way_around_is_an_error(lie: str, caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm({2: (NO_ANSWERS | CLAIMS)[lie], -1: (NO_ANSWERS | CLAIMS)[lie], 0: None, 1: None}, replicas=1)
    session = opened(swarm, Settings(max_retries=2, longest_pause=0))
    with pytest.raises(SpanFailedError, match=r"^Blocks 2:5 failed 3 time\(s\)") as caught:
        fed(session, *STEPS)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    [record] = caplog.records
    assert "there is no way around it" in record.message
    assert swarm.closed()


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_silent_server_is_left_after_the_bound_of_a_step(step: int, replicas: int) -> None:
    swarm = Swarm({step: SILENCE["silence"]}, replicas=replicas)
    assert fed(opened(swarm, Settings(step_timeout=0.3, seconds_per_token=0, longest_pause=0)), *STEPS) == SEEN
    assert swarm.banned == ([] if replicas == 1 else [0])  # a server that works again is not banned


# ---- too little room


@pytest.mark.parametrize("max_retries", [0, 3])
def test_session_reserves_less_on_servers_with_less_room(max_retries: int) -> None:
    swarm = Swarm({0: short_of_room(100)})
    session = opened(swarm, Settings(max_retries=max_retries), needed=80, max_length=200)
    assert fed(session, *STEPS) == SEEN
    assert [exchanges.max_length for exchanges in swarm.opened] == [200, 100]
    assert session.max_length == session.reserved == 100
    assert not swarm.banned
    assert swarm.network.readings == 1


@pytest.mark.parametrize("step", range(3))
def test_full_server_is_waited_for_and_not_banned(step: int) -> None:
    swarm, given_up = Swarm({step: FULL}, replicas=1), []

    def make_room() -> bool:
        given_up.append("idle sessions")
        return False

    session = opened(swarm, Settings(max_retries=0), make_room=make_room)
    assert fed(session, *STEPS) == SEEN
    assert given_up == ["idle sessions"]
    assert [(each.max_length, each.waits_for_room) for each in swarm.opened] == [(40, False), (20, True)]
    assert swarm.routes._full == {swarm.servers[0].peer_id}
    assert not swarm.banned
    assert swarm.network.readings == 1


@pytest.mark.parametrize("step", range(3))
def test_other_servers_are_preferred_to_a_full_one(step: int) -> None:
    swarm = Swarm({step: FULL})
    assert fed(opened(swarm, Settings(max_retries=0)), *STEPS) == SEEN
    assert swarm.used == [0, 1]
    assert not swarm.banned


def test_attempts_are_not_counted_while_others_of_the_client_end() -> None:
    swarm, ending = Swarm(dict.fromkeys(range(7), FULL), replicas=1), [True] * 7
    assert fed(opened(swarm, Settings(max_retries=0), make_room=ending.pop), *STEPS) == SEEN
    assert not ending
    assert not any(each.waits_for_room for each in swarm.opened)


def test_server_that_strangers_fill_each_time_fails_the_session() -> None:
    swarm = Swarm({-1: FULL}, replicas=1)
    with pytest.raises(SpanFailedError, match=r"failed 3 time\(s\).*Could not allocate"):
        opened(swarm, Settings(max_retries=2, longest_pause=0), make_room=lambda: True).extend(torch.tensor([[1]]))


def test_server_that_stays_full_fails_the_session() -> None:
    swarm = Swarm({-1: FULL}, replicas=1)
    with pytest.raises(SpanFailedError, match=r"failed 3 time\(s\).*Could not allocate 73728 bytes"):
        opened(swarm, Settings(max_retries=2, longest_pause=0)).extend(torch.tensor([[1]]))
    assert [exchanges.waits_for_room for exchanges in swarm.opened] == [False, True, True, True]
    assert not swarm.banned


def test_cache_limit_below_the_need_is_an_error_with_the_limit() -> None:
    swarm = Swarm({0: short_of_room(100)}, replicas=1)
    with pytest.raises(CacheLimitError, match="at most 100 tokens") as caught:
        opened(swarm, needed=120, max_length=240).extend(torch.tensor([[1]]))
    assert caught.value.limit == 100
    assert len(swarm.opened) == 1
    assert swarm.closed()
    assert not swarm.banned


def test_a_server_that_claims_little_room_is_gone_around(caplog: pytest.LogCaptureFixture) -> None:
    swarm = Swarm({0: short_of_room(100), 1: short_of_room(90)})
    session = opened(swarm, needed=120, max_length=240)
    assert fed(session, *STEPS) == SEEN
    assert swarm.used == [0, 1, 2]
    assert session.max_length == 240
    assert not caplog.records


def test_the_limit_of_a_session_is_the_roomiest_servers() -> None:
    swarm = Swarm({0: short_of_room(64), 1: short_of_room(5000), 2: short_of_room(80)}, replicas=3)
    with pytest.raises(CacheLimitError) as caught:
        opened(swarm, needed=6000, max_length=6000).extend(torch.tensor([[1]]))
    assert caught.value.limit == 5000


def test_a_banned_server_with_room_is_preferred_to_one_without() -> None:
    swarm = Swarm({0: short_of_room(100)}, replicas=2)
    swarm.routes.ban(swarm.servers[1].peer_id)
    assert fed(opened(swarm, needed=120, max_length=240), *STEPS) == SEEN
    assert swarm.used == [0, 1]


@pytest.mark.parametrize("limits", [[100, 90, 80], [300, 290, 280]], ids=["too little", "enough"])
def test_a_server_is_believed_once_in_a_session(limits: list[int]) -> None:
    swarm = Swarm({number: short_of_room(limit) for number, limit in enumerate(limits)}, replicas=1)
    session = opened(swarm, Settings(max_retries=2, longest_pause=0), needed=80, max_length=400)
    assert fed(session, *STEPS) == SEEN
    assert [exchanges.max_length for exchanges in swarm.opened] == [400, *limits[:1] * 3]


def test_a_server_that_claims_no_room_for_what_it_has_room_for_is_left() -> None:
    swarm = Swarm({0: short_of_room(4000)})
    assert fed(opened(swarm, needed=120, max_length=240), *STEPS) == SEEN
    assert swarm.banned == [0]


# ---- after an idle time


@pytest.mark.parametrize("max_retries", [0, 3])
def test_idle_session_that_servers_dropped_is_replaced_silently(
    caplog: pytest.LogCaptureFixture, max_retries: int
) -> None:
    swarm = Swarm({2: GONE})
    session = opened(swarm, Settings(max_retries=max_retries))
    fed(session, *STEPS[:2])
    session.resume(session.position, 20)
    assert fed(session, STEPS[2]) == SEEN[2:]
    assert swarm.fed(1) == [SEEN[2]]
    assert not swarm.banned
    assert swarm.network.readings == 1
    assert not caplog.records


def test_second_failure_of_an_idle_session_counts_as_a_failed_attempt() -> None:
    swarm = Swarm({2: GONE, 3: GONE})
    session = opened(swarm)
    fed(session, *STEPS[:2])
    session.resume(session.position, 20)
    assert fed(session, STEPS[2]) == SEEN[2:]
    assert swarm.used == [0, 0, 1]
    assert swarm.banned == [0]


@pytest.mark.parametrize("dropped", [False, True])
def test_resume_forgets_tokens_behind_its_position(*, dropped: bool) -> None:
    swarm = Swarm({1: GONE} if dropped else {}, version="2.3.0.dev2")
    session = opened(swarm)
    fed(session, [[1, 2, 3, 4, 5]])
    assert session.can_roll_back
    session.resume(2, 20)
    assert (session.position, session.ids) == (2, [1, 2])
    assert fed(session, [[7, 8]]) == [[[1, 2, 7, 8]]]
    assert swarm.fed(-1)[-1] == ([[1, 2, 7, 8]] if dropped else [[7, 8]])


def test_close_frees_the_servers_and_may_be_called_twice() -> None:
    swarm = Swarm()
    session = opened(swarm)
    fed(session, *STEPS)
    session.close()
    session.close()
    assert swarm.closed()
    assert swarm.opened[0].said_goodbye


# ---- bounds


@pytest.mark.parametrize(
    ("settings", "tokens", "seconds"),
    [
        ({}, 1, 30.05),
        ({}, 1000, 80),
        ({"step_timeout": 2.0, "seconds_per_token": 0.5}, 4, 4),
    ],
)
def test_steps_with_more_tokens_may_take_longer(settings: dict[str, Any], tokens: int, seconds: float) -> None:
    assert Settings(**settings).step_bound(tokens) == pytest.approx(seconds)
