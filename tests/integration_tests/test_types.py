"""Whatever types client and servers compute in, the tokens are those of petals' own client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from petals_answers import answers_of_petals
from random_families import FAMILIES, random_model, save
from transformers import AutoTokenizer

from langchain_petals import Petals
from langchain_petals.engine.network.span_stream import SpanStream
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.swarm import LocalSwarm
from langchain_petals.swarm.supervisor_link import SupervisorLink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

NEW = 24
PROMPTS = ["Who are you?", "Human: Repeat after me: 你好 🌍\nAI:"]
CLIENTS = ["float32", "bfloat16", "float16"]
CHAINS = {  # petals' servers refuse float16 on a processor
    "wide": ("float32", "float32"),
    "narrow": ("bfloat16", "bfloat16"),
    "narrowing": ("float32", "bfloat16"),
    "widening": ("bfloat16", "float32"),
}


class Typed:
    """Servers of a model in several types, on one swarm.

    Attributes:
        swarms: The servers by the name of their chain, which is also their prefix.
        prompts: Token ids.
        theirs: The tokens of petals' own client, by the client's type and the servers' prefix.
    """

    def __init__(self, swarms: dict[str, LocalSwarm], prompts: list[list[int]]) -> None:
        self.swarms, self.prompts = swarms, prompts
        self.theirs = answers_of_petals(swarms["wide"], list(swarms), CLIENTS, prompts, NEW)

    def ours(self, client: str, chain: str) -> list[list[int]]:
        """Return the new tokens for each prompt; one after the other, since rows of bfloat16 depend on others."""
        engine = Petals(**self.swarms[chain].connection, torch_dtype=client)._get_engine()
        sampling = Sampling(greedy=True, min_new_tokens=NEW)
        answers = []
        for ids in self.prompts:
            [generation] = engine.submit([Request(ids, NEW, sampling)], Settings(session_cache=0))
            answers.append([token for piece in generation for token in piece.tokens])
        return answers


@pytest.fixture(scope="module")
def typed(swarm: LocalSwarm, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    folder = tmp_path_factory.mktemp("models") / "typed"
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    fields = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    # its embeddings go through a norm, so that they are no numbers that bfloat16 could hold
    save(random_model(FAMILIES["bloom"] | fields), folder, headless=True)
    tokenizer.save_pretrained(folder)
    start = SupervisorLink.start
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        swarms = {}
        for name, types in CHAINS.items():
            each = iter(types)
            patch.setattr(
                SupervisorLink,
                "start",
                lambda self, name, each=each, **order: start(self, name, torch_dtype=next(each), **order),
            )
            swarms[name] = stack.enter_context(LocalSwarm(folder, initial_peers=swarm.initial_peers, dht_prefix=name))
        yield Typed(swarms, [tokenizer(prompt).input_ids for prompt in PROMPTS])


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("client", CLIENTS)
def test_tokens_equal_those_of_petals_own_client(typed: Typed, client: str, chain: str) -> None:
    assert typed.ours(client, chain) == typed.theirs[client][chain]


@pytest.mark.parametrize("chain", CHAINS)
def test_hidden_states_are_sent_in_the_type_that_servers_announce(
    typed: Typed, chain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, sent = SpanStream._request, set()

    def seen(stream: SpanStream, hidden: torch.Tensor, order: torch.Tensor | None) -> bytes:
        sent.add((stream.span.start, str(hidden.dtype)))
        return request(stream, hidden, order)

    monkeypatch.setattr(SpanStream, "_request", seen)
    typed.ours("float32", chain)
    first, second = CHAINS[chain]
    narrower = "torch.bfloat16" if "bfloat16" in (first, second) else "torch.float32"
    assert sent == {(0, f"torch.{first}"), (1, narrower)}
