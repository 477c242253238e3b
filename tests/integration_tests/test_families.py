"""Every family that petals 2.2.0.post1 serves gives the tokens of transformers, and in bfloat16 those of petals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import torch
from petals_answers import answers_of_petals
from random_families import FAMILIES, random_model, save
from transformers import AutoTokenizer

from langchain_petals import Petals
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

NEW = 40
PROMPTS = ["Who are you?", "Human: Repeat after me: 你好 🌍\nAI:", "q"]

SERVED: dict[str, dict[str, Any]] = {
    "llama": FAMILIES["llama"],
    "tied llama with grouped queries": FAMILIES["llama with grouped queries"] | {"tie_word_embeddings": True},
    "bloom": FAMILIES["bloom"],
    "falcon-40b": FAMILIES["falcon-40b"],
    "untied falcon-rw": FAMILIES["falcon-rw"] | {"tie_word_embeddings": False},
}


class Served(NamedTuple):
    """A family's model on two servers, and in this process."""

    swarm: LocalSwarm
    model: PreTrainedModel
    prompts: list[list[int]]

    def answers(self, *, num_beams: int = 1, **options: Any) -> list[list[int]]:
        """Return the new tokens for each prompt."""
        sampling = Sampling(greedy=True, min_new_tokens=NEW)
        requests = [Request(ids, NEW, sampling, num_beams=num_beams) for ids in self.prompts]
        engine = Petals(**self.swarm.connection, **options)._get_engine()
        generations = engine.submit(requests, Settings(session_cache=0))
        return [[token for piece in generation for token in piece.tokens] for generation in generations]

    def expected(self, **options: Any) -> list[list[int]]:
        """Return the new tokens by transformers."""
        answers = []
        for ids in self.prompts:
            with torch.inference_mode():
                tokens = self.model.generate(
                    torch.tensor([ids]),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                    max_new_tokens=NEW,
                    min_new_tokens=NEW,
                    do_sample=False,
                    **options,
                )
            answers.append(tokens[0, len(ids) :].tolist())
        return answers


@pytest.fixture(scope="module", params=SERVED)
def served(
    request: pytest.FixtureRequest, swarm: LocalSwarm, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models") / request.param.replace(" ", "-")
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    end = {"eos_token_id": tokenizer.eos_token_id}
    model = random_model(SERVED[request.param] | {"vocab_size": len(tokenizer), **end})
    save(model, folder, headless=request.param == "bloom")  # as on the hub
    tokenizer.save_pretrained(folder)
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    with LocalSwarm(folder, initial_peers=swarm.initial_peers) as family:
        yield Served(family, model, prompts)


def test_tokens_equal_transformers(served: Served) -> None:
    expected = served.expected()
    assert served.answers() == expected
    assert [len(answer) for answer in expected] == [NEW] * len(PROMPTS)


def test_tokens_of_a_beam_search_equal_transformers(served: Served) -> None:
    expected = served.expected(num_beams=3)
    assert served.answers(num_beams=3) == expected
    assert expected != served.expected()


def test_tokens_in_bfloat16_equal_petals_own_client(served: Served) -> None:
    prefix = served.swarm.dht_prefix
    [theirs] = answers_of_petals(served.swarm, [prefix], ["bfloat16"], served.prompts, NEW).values()
    assert served.answers(torch_dtype="bfloat16") == theirs[prefix]
