"""Drafts on real servers: the same answers, and fewer trips where all servers can roll back.

On released servers, no draft is sent. Servers of petals' git main can roll back; see scripts/run_on_main.sh.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from repeating_session import EqualCosts
from token_loop import before_step, servers_of

from langchain_petals import Petals
from langchain_petals.engine.sessions.session import SwarmSession
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SENTENCE = "The quick brown fox jumps over the lazy dog."
PROMPTS = [
    f"Human: Repeat: {SENTENCE}\nAI:",
    f"{SENTENCE} {SENTENCE} {SENTENCE} The quick",
    "Human: Count from 1 to 20.\nAI: 1, 2, 3, 4, 5, 6, 7, 1, 2, 3,",
]
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalSwarm]:
    """A swarm with two servers for each half of the blocks."""
    with LocalSwarm(replicas=2) as swarm:
        yield swarm


def _model(swarm: LocalSwarm, **options: Any) -> Petals:
    """Return a model whose drafts are as long as they can be."""
    llm = Petals(**swarm.connection, **({"max_new_tokens": 40, "session_cache": 0, "max_retries": 5} | options))
    client: Any = llm._get_engine().client
    client.step_costs = EqualCosts()
    return llm


def _answer(llm: Petals, prompt: str) -> tuple[str, dict[str, int]]:
    result = llm.generate([prompt])
    assert result.llm_output is not None
    usage: dict[str, int] = result.llm_output["token_usage"]
    return result.generations[0][0].text, usage


def _drop_stream(session: SwarmSession, number: int) -> None:
    """Cut the connection to a server of the session."""
    chain = session._chain
    assert chain is not None
    stream = chain._streams[number]

    async def cut() -> None:
        assert stream._writer is not None
        stream._writer.transport.abort()

    session._routes.network.wait_for(cut(), 10)
    session._routes._banned.clear()  # those of earlier failures; else there would soon be no way around


@contextmanager
def _watched() -> Iterator[list[tuple[bool, int]]]:
    """Yield for each step whether the session could roll back before it, and how many tokens it fed."""
    extend, steps = SwarmSession.extend, list[tuple[bool, int]]()

    def watch_and_extend(session: SwarmSession, ids: Any, *args: Any, **more: Any) -> Any:
        steps.append((session.can_roll_back, ids.shape[1]))
        return extend(session, ids, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwarmSession, "extend", watch_and_extend)
        yield steps


@pytest.mark.parametrize("options", [GREEDY, {"temperature": 0.7, "seed": 3}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("stop", [None, ["lazy dog. T", "7, 1"]], ids=["to the end", "stop sequences"])
def test_answers_are_those_without_drafts(
    swarm: LocalSwarm, options: dict[str, Any], stop: Sequence[str] | None
) -> None:
    llm = _model(swarm, stop=stop, **options)
    plain = _model(swarm, stop=stop, speculation=False, **options)
    for prompt in PROMPTS:
        with _watched() as steps:
            text, usage = _answer(llm, prompt)
        expected, usage_without = _answer(plain, prompt)
        assert text == expected
        assert usage["completion_tokens"] == usage_without["completion_tokens"]
        assert usage_without["drafted_tokens"] == 0
        if any(can for can, _ in steps):
            assert usage["trips"] <= usage_without["trips"]
            assert usage["drafted_tokens"] >= usage["accepted_tokens"]
        else:
            assert all(tokens == 1 for _, tokens in steps[1:])
            assert usage["drafted_tokens"] == 0


def test_a_text_that_repeats_itself_needs_fewer_trips_on_servers_that_roll_back(swarm: LocalSwarm) -> None:
    with _watched() as steps:
        _, usage = _answer(_model(swarm, **GREEDY), PROMPTS[1])
    if steps[-1][0]:
        assert usage["accepted_tokens"] > 0
        assert usage["completion_tokens"] - usage["trips"] - usage["accepted_tokens"] in (-1, 0)


@pytest.mark.parametrize("server", range(2))
@pytest.mark.parametrize("prompt", PROMPTS[:2])
def test_a_connection_lost_at_any_step_costs_no_token(pair: LocalSwarm, prompt: str, server: int) -> None:
    """At the step that checks a draft, at the next one, which tells servers to roll back, and at all others."""
    llm = _model(pair, **GREEDY)
    expected, usage = _answer(_model(pair, speculation=False, **GREEDY), prompt)
    calm, usage = _answer(llm, prompt)
    assert calm == expected
    for step in range(1, min(usage["trips"], 6)):
        with before_step({step: lambda session: _drop_stream(session, server)}):
            assert _answer(llm, prompt)[0] == expected


def test_a_server_killed_while_drafts_are_checked_costs_no_token(pair: LocalSwarm) -> None:
    llm = _model(pair, **GREEDY)
    expected, _ = _answer(_model(pair, speculation=False, **GREEDY), PROMPTS[1])
    with before_step({3: lambda session: servers_of(session, pair)[1].kill()}):
        assert _answer(llm, PROMPTS[1])[0] == expected


def test_turns_of_a_conversation_are_those_without_drafts(swarm: LocalSwarm) -> None:
    """A session that is kept after drafts goes on with what it should hold."""
    told = []
    for speculation in (True, False):
        llm = _model(swarm, session_cache=4, speculation=speculation, **GREEDY)
        llm._get_engine().pool.clear()
        text = PROMPTS[1]
        for more in (" The quick brown", " fox jumps over", " The quick"):
            answer, usage = _answer(llm, text)
            told.append((answer, usage["cached_tokens"]))
            text += answer + more
        llm._get_engine().pool.clear()
    assert told[:3] == told[3:]
    assert all(cached for _, cached in told[1:3])
