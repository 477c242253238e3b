"""Beam search on a swarm survives the death of a server, and frees the servers' caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from server_cache import free_caches, wait_until_free
from token_loop import before_step, servers_of
from transformers import AutoTokenizer, LlamaForCausalLM

from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from langchain_petals.engine.sessions.session import SwarmSession

PROMPT = "Human: Tell me about the sea.\nAI:"
NEW = 24


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalSwarm]:
    """A swarm with two servers for each half of the blocks."""
    with LocalSwarm(replicas=2) as swarm:
        yield swarm


@pytest.fixture(scope="module")
def expected(tiny_folder: Path) -> str:
    """The text that transformers finds with four beams."""
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_folder), LlamaForCausalLM.from_pretrained(tiny_folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.inference_mode():
        found = model.generate(ids, num_beams=4, do_sample=False, max_new_tokens=NEW)
    text: str = tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
    return text


def searching(swarm: LocalSwarm) -> Petals:
    return Petals(**swarm.connection, temperature=0, max_new_tokens=NEW, model_kwargs={"num_beams": 4})


def test_beam_search_equals_transformers_and_frees_the_servers(pair: LocalSwarm, expected: str) -> None:
    llm = searching(pair)
    free_caches(llm, pair)
    assert llm.invoke(PROMPT) == expected
    wait_until_free(llm, pair)


def test_beam_search_survives_killed_servers(pair: LocalSwarm, expected: str) -> None:
    def kill_the_first(session: SwarmSession) -> None:
        servers_of(session, pair)[0].kill()

    def kill_the_second(session: SwarmSession) -> None:
        servers_of(session, pair)[1].kill()

    with before_step({4: kill_the_first, 9: kill_the_second}):
        assert searching(pair).invoke(PROMPT) == expected
