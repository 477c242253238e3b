"""Idle sessions: a conversation sends only new tokens, and gets the same answers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from server_cache import free_caches, tokens_in_use, wait_until_free

from langchain_petals import Petals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.swarm import LocalSwarm

QUESTIONS = ["My name is Zorvan.", "What is my name?", "Who are you?", "Hello!"]


@pytest.fixture
def llm(swarm: LocalSwarm) -> Iterator[Petals]:
    """A greedy model, with no idle sessions from earlier tests."""
    llm = Petals(**swarm.connection, temperature=0, max_new_tokens=40)
    llm._get_engine().pool.clear()
    yield llm
    llm._get_engine().pool.clear()


def _converse(llm: Petals) -> list[tuple[str, dict[str, int]]]:
    prompt, turns = "", []
    for question in QUESTIONS:
        prompt += f"Human: {question}\nAI:"
        result = llm.generate([prompt])
        answer = result.generations[0][0].text
        assert result.llm_output is not None
        turns.append((answer, result.llm_output["token_usage"]))
        prompt += f"{answer}\n"
    return turns


def test_each_turn_sends_only_new_tokens(llm: Petals, swarm: LocalSwarm) -> None:
    turns = _converse(llm)
    assert llm.route == [(server.peer_id, server.blocks) for server in swarm.servers]
    without = _converse(Petals(**swarm.connection, temperature=0, max_new_tokens=40, session_cache=0))
    assert [answer for answer, _ in turns] == [answer for answer, _ in without]
    assert [usage["cached_tokens"] for _, usage in without] == [0] * len(QUESTIONS)
    assert turns[0][1]["cached_tokens"] == 0
    for (_, before), (_, now) in pairwise(turns):
        # all but the last token that was chosen: it was never sent
        assert now["cached_tokens"] == before["prompt_tokens"] + before["completion_tokens"] - 1


def test_closing_idle_sessions_frees_the_servers_caches(llm: Petals, swarm: LocalSwarm) -> None:
    free_caches(llm, swarm)
    _converse(llm)
    assert all(tokens_in_use(llm, swarm))
    llm._get_engine().pool.clear()
    wait_until_free(llm, swarm)


def test_idle_sessions_are_limited_in_number(llm: Petals) -> None:
    pool = llm._get_engine().pool
    few = llm.model_copy(update={"session_cache": 2})
    for index in range(4):
        few.invoke(f"Human: Count from {index} to 9.\nAI:")
    assert len(pool) == 2
    pool.clear()


def test_an_idle_session_closes_on_time(llm: Petals, swarm: LocalSwarm) -> None:
    free_caches(llm, swarm)
    brief = llm.model_copy(update={"session_idle_timeout": 0.05})
    brief.invoke("Human: Hello!\nAI:")
    wait_until_free(llm, swarm)
    assert len(llm._get_engine().pool) == 0


def test_idle_session_that_servers_dropped_is_replaced_silently(llm: Petals, swarm: LocalSwarm) -> None:
    calm = [answer for answer, _ in _converse(llm)]
    llm._get_engine().pool.clear()
    prompt, answers, broken = "", [], []
    for question in QUESTIONS:
        prompt += f"Human: {question}\nAI:"
        idle = list(llm._get_engine().pool._idle)
        broken.append(sum(map(_break_connections, idle)))
        answers.append(llm.invoke(prompt))
        prompt += f"{answers[-1]}\n"
    assert answers == calm
    assert broken == [0, *[len(swarm.servers)] * (len(QUESTIONS) - 1)]
    assert all(server.alive for server in swarm.servers)


def _break_connections(session: Any) -> int:
    """Close the streams of a session as a server does after an idle time; return how many there were."""
    for stream in session._chain._streams:
        session._chain._network.wait_for(stream.close(), 10)
        stream._writer = _Broken()
    return len(session._chain._streams)


class _Broken:
    """A closed connection."""

    def write(self, _: bytes) -> None:
        raise ConnectionResetError

    def close(self) -> None:
        pass
