"""Servers that fail while they check drafts: the answer stays the same, wherever that happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from repeating_session import EqualCosts
from scripted_swarm import Exchanges, ScriptedNetwork, ScriptedServer, hang_up
from server_lies import NO_ANSWERS

from langchain_petals.engine.decoding import Row, decode
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.network import Routes, routes, span_stream
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.sessions import SwarmSession
from langchain_petals.engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from transformers import PreTrainedTokenizerFast

WIDTH = 64  # of the hidden states, so most tokens of a text
VOCABULARY = 256
PROMPT = [*b"abcdefabcdef"]
BUDGET = 40
RELEASED, MAIN = "2.2.0.post1", "2.3.0.dev2"


def said(seen: Sequence[int]) -> int:
    """Return the token that the model says after these: it repeats six letters, and at times leaves one out."""
    step = 2 if len(seen) % 7 == 0 else 1
    return 97 + (seen[-1] - 97 + step) % 6


def answer_to(prompt: Sequence[int], length: int) -> list[int]:
    text = list(prompt)
    while len(text) < len(prompt) + length:
        text.append(said(text))
    return text[len(prompt) :]


class Parts:
    """The part of a model in this process; the servers send the tokens that they have seen."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(*ids.shape, WIDTH)
        hidden[:, :, 0] = ids
        return hidden

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(hidden.shape[0], VOCABULARY)
        for row, seen in zip(logits, hidden.long().tolist(), strict=True):
            row[said([token for token in seen if token])] = 10.0
        return logits


class Swarm:
    """Servers of a model of 2 blocks, a few for each block.

    Args:
        failing: The numbers of the steps that fail, for each block, counted over all of its servers.
        versions: The version of each server of a block, in the order in which they are preferred.
    """

    def __init__(self, failing: Sequence[Sequence[int]] = ((), ()), versions: Sequence[str] = (MAIN,) * 4) -> None:
        self._failing, self.steps = failing, [0, 0]
        self.sessions: list[Exchanges] = []
        self.servers: list[ScriptedServer] = []
        for block in range(2):
            for number, version in enumerate(versions):
                server = ScriptedServer(
                    10 * block + number, block, block + 1, speed=9000 - 1000 * number, version=version
                )
                server.answering, server.compute = self._answer, self._seen
                self.servers.append(server)
        network: Any = ScriptedNetwork(*self.servers)
        self.routes = Routes(network, "model", 2)

    async def _answer(self, exchanges: Exchanges) -> AsyncIterator[bytes] | None:
        block = exchanges.server.start
        self.steps[block] += 1
        if block and exchanges not in self.sessions:
            self.sessions.append(exchanges)
        fails = self.steps[block] - 1 in self._failing[block]
        return NO_ANSWERS["hanging up"](exchanges.hidden[-1]) if fails else None

    @staticmethod
    def _seen(exchanges: Exchanges) -> torch.Tensor:
        """Return what the server has in its cache, up to each position; the second server gets that of the first."""
        seen: list[float] = []
        for metadata, hidden in zip(exchanges.metadata, exchanges.hidden, strict=True):
            newest = [row[row.nonzero()[-1]].item() for row in hidden[0]]
            seen = [*seen[: metadata.get("start_from_position")], *newest]
        out = torch.zeros_like(exchanges.hidden[-1])
        new = out.shape[1]
        for number in range(new):
            length = len(seen) - new + number + 1
            out[0, number, :length] = torch.tensor(seen[:length])
        return out

    def answer(self, tokenizer: Any, *, budget: int = BUDGET) -> tuple[list[int], Generation, SwarmSession]:
        """Let it answer the prompt."""
        parts: Any = Parts()
        session = SwarmSession(
            parts,
            self.routes,
            needed=len(PROMPT) + budget,
            max_length=len(PROMPT) + budget,
            settings=Settings(longest_pause=0),
            step_costs=EqualCosts(),
        )
        generation = Generation(Request(PROMPT, budget, Sampling(greedy=True)))
        decode(session, [Row(generation, tokenizer, [])], 1024, lambda: None, speculation=True)
        return [token for piece in generation for token in piece.tokens], generation, session


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(routes, "_FIRST_PAUSE", 0)
    monkeypatch.setattr(span_stream, "_GOODBYE_SECONDS", 0.2)
    yield
    hang_up()


EXPECTED = answer_to(PROMPT, BUDGET)


def test_the_answer_needs_fewer_trips_on_servers_that_roll_back(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    swarm = Swarm()
    tokens, generation, session = swarm.answer(byte_tokenizer)
    assert tokens == EXPECTED
    assert generation.trips == swarm.steps[0] == BUDGET - generation.accepted_tokens < BUDGET / 2
    assert 0 < generation.accepted_tokens < generation.drafted_tokens
    assert session.ids == [*PROMPT, *EXPECTED[:-1]]
    [exchanges] = swarm.sessions
    assert any("start_from_position" in metadata for metadata in exchanges.metadata)


@pytest.mark.parametrize("block", range(2))
@pytest.mark.parametrize("versions", [(MAIN, MAIN), (MAIN, RELEASED), (RELEASED, MAIN)], ids="-".join)
def test_a_failure_at_any_step_leaves_the_answer_as_it_is(
    byte_tokenizer: PreTrainedTokenizerFast, block: int, versions: tuple[str, str]
) -> None:
    """At the step that checks a draft, at the one that tells a server to roll back, and at all others."""
    whole = Swarm(versions=versions)
    whole.answer(byte_tokenizer)
    for step in range(0, whole.steps[block], 1 if versions[0] == MAIN else 6):
        swarm = Swarm([(), (step,)] if block else [(step,), ()], versions)
        tokens, _, session = swarm.answer(byte_tokenizer)
        assert tokens == EXPECTED
        assert session.ids == [*PROMPT, *EXPECTED[:-1]]


@pytest.mark.parametrize("gap", [1, 2])
def test_a_second_failure_after_the_first_leaves_the_answer_as_it_is(
    byte_tokenizer: PreTrainedTokenizerFast, gap: int
) -> None:
    for step in range(12):
        swarm = Swarm([(), (step, step + gap)], (MAIN, RELEASED, MAIN))
        tokens, _, session = swarm.answer(byte_tokenizer)
        assert tokens == EXPECTED
        assert session.ids == [*PROMPT, *EXPECTED[:-1]]


@pytest.mark.parametrize("released", [(0,), (1,), (0, 1)], ids=["the first", "the last", "both"])
def test_no_draft_is_sent_where_a_server_cannot_roll_back(
    byte_tokenizer: PreTrainedTokenizerFast, released: tuple[int, ...]
) -> None:
    swarm = Swarm(versions=[MAIN])
    for number in released:
        swarm.servers[number].announcement[2]["version"] = RELEASED
    tokens, generation, _ = swarm.answer(byte_tokenizer)
    assert tokens == EXPECTED
    assert generation.drafted_tokens == 0
    [exchanges] = swarm.sessions
    assert exchanges.lengths == [len(PROMPT), *[1] * (BUDGET - 1)]


@pytest.mark.parametrize("budget", range(1, 9))
def test_no_server_gets_more_tokens_than_it_has_room_for(byte_tokenizer: PreTrainedTokenizerFast, budget: int) -> None:
    swarm = Swarm()
    tokens, _, session = swarm.answer(byte_tokenizer, budget=budget)
    assert tokens == EXPECTED[:budget]
    [exchanges] = swarm.sessions
    held = 0
    for metadata, length in zip(exchanges.metadata, exchanges.lengths, strict=True):
        held = metadata.get("start_from_position", held) + length
        assert held <= session.max_length
