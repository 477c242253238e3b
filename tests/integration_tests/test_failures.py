"""After dead servers, dropped streams and time-outs no token is lost, and no session stays open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from server_cache import free_caches, tokens_in_use, wait_until_free
from token_loop import before_step, held_before_step, servers_of

from langchain_petals import Petals
from langchain_petals.engine.generation import Generation
from langchain_petals.errors import (
    BlocksMissingError,
    DeadlineExceededError,
    SpanFailedError,
    SwarmError,
    SwarmUnreachableError,
)
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from langchain_petals.engine.sessions.session import SwarmSession

PROMPT = "Human: Count from 1 to 20.\nAI:"


@pytest.fixture
def pair() -> Iterator[LocalSwarm]:
    """A swarm with two servers for each half of the blocks."""
    with LocalSwarm(replicas=2) as swarm:
        yield swarm


def _greedy(swarm: LocalSwarm, **options: Any) -> Petals:
    # without drafts, since the tests act at certain steps; see test_drafts.py for those
    fixed = {"temperature": 0, "max_new_tokens": 60, "session_cache": 0, "speculation": False}
    return Petals(**swarm.connection, **(fixed | options))


def test_server_killed_during_a_stream_costs_no_token(pair: LocalSwarm) -> None:
    llm = _greedy(pair)
    calm = llm.invoke(PROMPT)

    def kill_the_first(session: SwarmSession) -> None:
        servers_of(session, pair)[0].kill()

    def kill_the_second(session: SwarmSession) -> None:
        servers_of(session, pair)[1].kill()

    with before_step({5: kill_the_first, 15: kill_the_second}):
        assert "".join(llm.stream(PROMPT)) == calm
    batch = ["Human: Hello!\nAI:", PROMPT]
    assert llm.batch(batch) == [llm.invoke(prompt) for prompt in batch]


def test_a_batch_survives_a_killed_server(pair: LocalSwarm) -> None:
    llm = _greedy(pair)
    prompts = [PROMPT, "Human: Count from 3 to 20.\nAI:", "Human: Who are you?\nAI:"]
    calm = llm.batch(prompts)

    def kill_one(session: SwarmSession) -> None:
        servers_of(session, pair)[0].kill()

    with before_step({12: kill_one}):  # by then each session is open, however the batch was divided
        assert llm.batch(prompts) == calm


def test_error_names_the_span_whose_last_server_died(pair: LocalSwarm) -> None:
    llm = _greedy(pair, max_retries=1)

    def kill_the_second_half(_: SwarmSession) -> None:
        for server in pair.servers:
            if server.blocks.start:
                server.kill()

    with before_step({5: kill_the_second_half}), pytest.raises(SwarmError) as failure:
        list(llm.stream(PROMPT))
    assert isinstance(failure.value, SpanFailedError | BlocksMissingError)
    assert failure.value.is_retryable


def test_error_names_blocks_without_a_server(tiny_folder: Path) -> None:
    with LocalSwarm(servers=1) as swarm:
        only = swarm.servers[0]
        llm = Petals(**swarm.connection, blocked_servers=[only.peer_id], connect_timeout=2)
        with pytest.raises(BlocksMissingError, match=r"block\(s\) 0, 1, 2, 3\b") as failure:
            llm.invoke(PROMPT)
        assert failure.value.blocks == (0, 1, 2, 3)


def test_missing_swarm_is_an_error_at_once(tiny_folder: Path) -> None:
    nobody = "/ip4/127.0.0.1/tcp/9/p2p/12D3KooWSDgQVRjfjoUBSkSMD8oMwoDYdMLKPB6kQnLNbiTnJsvB"
    llm = Petals(model=str(tiny_folder), initial_peers=[nobody], dht_prefix="nobody")
    with pytest.raises(SwarmUnreachableError, match="initial_peers"):
        llm.invoke(PROMPT)


def test_a_dropped_stream_closes_its_session(swarm: LocalSwarm) -> None:
    llm = _greedy(swarm)
    free_caches(llm, swarm)
    with held_before_step(5) as wait_until_held:
        stream: Any = llm.stream(PROMPT)
        next(stream)
        wait_until_held()
        assert all(tokens_in_use(llm, swarm))
        stream.close()
    wait_until_free(llm, swarm)


async def test_a_cancelled_task_closes_its_session(swarm: LocalSwarm) -> None:
    llm = _greedy(swarm)
    await asyncio.to_thread(free_caches, llm, swarm)

    async def consume() -> None:
        async for _ in llm.astream(PROMPT):
            pass

    with held_before_step(5) as wait_until_held:
        task = asyncio.create_task(consume())
        await asyncio.to_thread(wait_until_held)
        assert all(await asyncio.to_thread(tokens_in_use, llm, swarm))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(wait_until_free, llm, swarm)


def test_a_deadline_ends_the_call_and_closes_its_session(swarm: LocalSwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = _greedy(swarm, timeout=1000)
    free_caches(llm, swarm)
    with held_before_step(5) as wait_until_held:
        stream: Any = llm.stream(PROMPT)
        next(stream)
        wait_until_held()
        assert all(tokens_in_use(llm, swarm))
        monkeypatch.setattr(Generation, "_remaining", lambda _: 0.0)
        with pytest.raises(DeadlineExceededError, match=r"timeout of 1000 s passed after 5 generated"):
            list(stream)
    wait_until_free(llm, swarm)


def test_cancelled_row_does_not_disturb_other_rows(swarm: LocalSwarm) -> None:
    llm = _greedy(swarm)
    expected = llm.invoke(PROMPT)
    options = llm._call_options(None, {})
    with held_before_step(5) as wait_until_held:
        first, second = llm._submit(
            [llm.get_token_ids(text) for text in (PROMPT, "Human: Count from 3 to 20.\nAI:")], options
        )
        pieces = iter(second)
        next(pieces)
        wait_until_held()
        pieces.close()  # type: ignore[attr-defined]
    assert "".join(piece.text for piece in first) == expected


def test_three_hundred_generations_do_not_hang(swarm: LocalSwarm) -> None:
    """Petals' own client deadlocks within some 200 of them, when connections are collected."""
    llm = _greedy(swarm, max_new_tokens=8)
    for index in range(300):
        count = 1 + index % 16
        assert len(llm.batch(["Who are you?"] * count)) == count
