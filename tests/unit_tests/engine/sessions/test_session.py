"""A session continues when its servers fail: the tokens that each server is fed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
import torch
from scripted_swarm import ScriptedSwarm

from langchain_petals.engine.network import CacheLimitError
from langchain_petals.engine.sessions import session as session_module
from langchain_petals.engine.sessions.session import SwarmSession
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import BlocksMissingError, SpanFailedError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GONE = ConnectionResetError("the server is gone")
AT_ONCE = Settings(longest_pause=0)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[..., SwarmSession]:
    """Return a function that opens a session on a scripted swarm."""

    def open_session(
        swarm: ScriptedSwarm, settings: Settings = AT_ONCE, *, needed: int = 20, max_length: int = 40, **more: Any
    ) -> SwarmSession:
        monkeypatch.setattr(session_module, "SpanChain", swarm.open_chain)
        return SwarmSession(swarm, swarm, needed=needed, max_length=max_length, settings=settings, **more)

    return open_session


def fed(session: SwarmSession, *steps: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """Feed a session; return the tokens of each row that the servers have seen after each step."""
    seen = []
    for step in steps:
        logits = session.extend(torch.tensor(step))
        assert logits.shape == (len(step), ScriptedSwarm.vocabulary)
        assert session.ids == logits[0].long()[: session.position].tolist()
        seen.append(logits.long()[:, : session.position].tolist())
    return seen


STEPS = ([[1, 2, 3], [4, 5, 6]], [[7], [8]], [[9], [10]])
SEEN = [
    [[1, 2, 3], [4, 5, 6]],
    [[1, 2, 3, 7], [4, 5, 6, 8]],
    [[1, 2, 3, 7, 9], [4, 5, 6, 8, 10]],
]


def test_no_token_is_sent_twice(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm()
    assert fed(opened(swarm), *STEPS) == SEEN
    [chain] = swarm.chains
    assert chain.steps == list(STEPS)
    assert chain.max_length == 40


def test_no_chain_is_opened_before_the_first_step(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm()
    session = opened(swarm)
    assert (session.position, session.ids) == (0, [])
    session.close()
    assert not swarm.chains


@pytest.mark.parametrize("rows", [1, 2])
def test_long_input_is_sent_in_chunks(opened: Callable[..., SwarmSession], rows: int) -> None:
    swarm = ScriptedSwarm()
    tokens = [list(range(1, 11))] * rows
    assert fed(opened(swarm, Settings(prefill_chunk_tokens=4)), tokens) == [tokens]
    assert [len(step[0]) for step in swarm.chains[0].steps] == ([4, 4, 2] if rows == 1 else [2] * 5)


# ---- a server fails


@pytest.mark.parametrize("step", range(3))
def test_all_tokens_are_fed_to_another_server(
    opened: Callable[..., SwarmSession], caplog: pytest.LogCaptureFixture, step: int
) -> None:
    swarm = ScriptedSwarm({step: GONE})
    assert fed(opened(swarm), *STEPS) == SEEN
    first, second = swarm.chains
    assert first.closed
    assert second.steps == [SEEN[step], *STEPS[step + 1 :]]
    assert swarm.banned == ["server 0"]
    assert swarm.refreshed == [AT_ONCE.connect_timeout]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "Blocks 2:5 failed" in record.message


@pytest.mark.parametrize("step", range(6))
def test_failure_within_a_long_input_feeds_all_of_it_again(opened: Callable[..., SwarmSession], step: int) -> None:
    swarm = ScriptedSwarm({step: GONE})
    tokens = [list(range(1, 11))]
    session = opened(swarm, Settings(prefill_chunk_tokens=2, longest_pause=0))
    assert fed(session, tokens, [[11]]) == [tokens, [[*tokens[0], 11]]]


def test_several_servers_may_fail_one_after_the_other(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm({0: GONE, 1: GONE, 2: GONE})
    assert fed(opened(swarm), *STEPS) == SEEN
    assert [chain.closed for chain in swarm.chains] == [True, True, True, False]
    assert swarm.banned == ["server 0", "server 1", "server 2"]


def test_attempts_are_counted_again_after_each_step_that_worked(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm({0: GONE, 2: GONE, 4: GONE})
    assert fed(opened(swarm, Settings(max_retries=1)), *STEPS) == SEEN


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_failing_step_is_given_up_after_max_retries(opened: Callable[..., SwarmSession], max_retries: int) -> None:
    swarm = ScriptedSwarm({-1: GONE})
    session = opened(swarm, Settings(max_retries=max_retries, longest_pause=0))
    with pytest.raises(
        SpanFailedError, match=r"Blocks 2:5 failed \d time\(s\).*ConnectionResetError: the server"
    ) as got:
        session.extend(torch.tensor([[1]]))
    assert (got.value.start, got.value.end, got.value.attempts) == (2, 5, max_retries + 1)
    assert got.value.__cause__ is GONE
    assert len(swarm.chains) == max_retries + 1
    assert all(chain.closed for chain in swarm.chains)


def test_pauses_grow_up_to_a_limit(opened: Callable[..., SwarmSession], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=pauses.append))
    session = opened(ScriptedSwarm({-1: GONE}), Settings(max_retries=7, longest_pause=5))
    with pytest.raises(SpanFailedError):
        session.extend(torch.tensor([[1]]))
    assert pauses == [0, 0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize("error", [SwarmUnreachableError("no peers"), BlocksMissingError([3], "prefix")], ids=type)
def test_missing_routes_are_asked_for_again(opened: Callable[..., SwarmSession], error: Exception) -> None:
    swarm = ScriptedSwarm(no_routes=[error, error])
    assert fed(opened(swarm), *STEPS) == SEEN


@pytest.mark.parametrize("error", [SwarmUnreachableError("no peers"), BlocksMissingError([3], "prefix")], ids=type)
def test_error_about_missing_routes_is_raised_after_the_last_attempt(
    opened: Callable[..., SwarmSession], error: Exception
) -> None:
    session = opened(ScriptedSwarm(no_routes=[error] * 4))
    with pytest.raises(type(error)) as caught:
        session.extend(torch.tensor([[1]]))
    assert caught.value is error


def test_other_errors_are_not_retried(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm(no_routes=[ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        opened(swarm).extend(torch.tensor([[1]]))
    assert not swarm.refreshed


# ---- too little room


def refusal(limit: int) -> RuntimeError:
    return RuntimeError(f"AllocationFailed: Cannot allocate KV cache for 999 tokens, max = {limit}")


@pytest.mark.parametrize("max_retries", [0, 3])
def test_session_reserves_less_on_servers_with_less_room(opened: Callable[..., SwarmSession], max_retries: int) -> None:
    swarm = ScriptedSwarm({0: refusal(30)})
    session = opened(swarm, Settings(max_retries=max_retries), needed=20, max_length=40)
    assert fed(session, *STEPS) == SEEN
    assert [chain.max_length for chain in swarm.chains] == [40, 30]
    assert session.max_length == session.reserved == 30
    assert not swarm.banned
    assert not swarm.refreshed


FULL = RuntimeError("AllocationFailed: Could not allocate 73728 bytes immediately: out of memory")


@pytest.mark.parametrize("step", range(3))
def test_full_server_is_waited_for_and_not_banned(opened: Callable[..., SwarmSession], step: int) -> None:
    swarm, given_up = ScriptedSwarm({step: FULL}), []
    session = opened(swarm, Settings(max_retries=0), make_room=lambda: given_up.append("idle sessions"))
    assert fed(session, *STEPS) == SEEN
    assert given_up == ["idle sessions"]
    assert [(chain.max_length, chain.wait_for_room) for chain in swarm.chains] == [(40, False), (20, True)]
    assert swarm.full == ["server 0"]
    assert not swarm.banned
    assert not swarm.refreshed


def test_server_that_stays_full_fails_the_session(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm({-1: FULL})
    with pytest.raises(SpanFailedError, match=r"failed 3 time\(s\).*Could not allocate 73728 bytes") as caught:
        opened(swarm, Settings(max_retries=2, longest_pause=0)).extend(torch.tensor([[1]]))
    assert caught.value.__cause__ is FULL
    assert [chain.wait_for_room for chain in swarm.chains] == [False, True, True, True]
    assert not swarm.banned


def test_cache_limit_below_the_need_is_an_error_with_the_limit(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm({0: refusal(19)})
    with pytest.raises(CacheLimitError, match="at most 19 tokens") as caught:
        opened(swarm, needed=20, max_length=40).extend(torch.tensor([[1]]))
    assert caught.value.limit == 19
    assert len(swarm.chains) == 1
    assert swarm.chains[0].closed
    assert not swarm.banned


# ---- after an idle time


@pytest.mark.parametrize("max_retries", [0, 3])
def test_idle_session_that_servers_dropped_is_replaced_silently(
    opened: Callable[..., SwarmSession], caplog: pytest.LogCaptureFixture, max_retries: int
) -> None:
    swarm = ScriptedSwarm({2: GONE})
    session = opened(swarm, Settings(max_retries=max_retries))
    fed(session, *STEPS[:2])
    session.resume(session.position, 20)
    assert fed(session, STEPS[2]) == SEEN[2:]
    assert swarm.chains[1].steps == [SEEN[2]]
    assert not swarm.banned
    assert not swarm.refreshed
    assert not caplog.records


def test_second_failure_of_an_idle_session_counts_as_a_failed_attempt(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm({2: GONE, 3: GONE})
    session = opened(swarm)
    fed(session, *STEPS[:2])
    session.resume(session.position, 20)
    assert fed(session, STEPS[2]) == SEEN[2:]
    assert swarm.banned == ["server 1"]
    assert len(swarm.chains) == 3


@pytest.mark.parametrize("dropped", [False, True])
def test_resume_forgets_tokens_behind_its_position(opened: Callable[..., SwarmSession], *, dropped: bool) -> None:
    swarm = ScriptedSwarm({1: GONE} if dropped else {}, can_roll_back=True)
    session = opened(swarm)
    fed(session, [[1, 2, 3, 4, 5]])
    assert session.can_roll_back
    session.resume(2, 20)
    assert (session.position, session.ids) == (2, [1, 2])
    assert fed(session, [[7, 8]]) == [[[1, 2, 7, 8]]]
    assert swarm.chains[-1].steps[-1] == ([[1, 2, 7, 8]] if dropped else [[7, 8]])


def test_close_frees_the_servers_and_may_be_called_twice(opened: Callable[..., SwarmSession]) -> None:
    swarm = ScriptedSwarm()
    session = opened(swarm)
    fed(session, *STEPS)
    session.close()
    session.close()
    assert swarm.chains[0].closed


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
