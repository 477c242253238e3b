"""Beam search equals transformers' own, and applies the request's options, stop sequences and end tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from local_engine import LocalEngine

from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request, Sampling

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPT = [5, 11, 42]
NEW = 12


@pytest.fixture
def engine(babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast) -> LocalEngine:
    return LocalEngine(babbler, endless_tokenizer)


def asked(**more: Any) -> Request:
    sampling = more.pop("sampling", Sampling(greedy=True))
    return Request(PROMPT, NEW, sampling, num_beams=4, **more)


def searched(model: LlamaForCausalLM, **options: Any) -> list[int]:
    prompt = torch.tensor([PROMPT])
    chosen = {"num_beams": 4, "do_sample": False, "max_new_tokens": NEW} | options
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), **chosen)[0, 3:].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": ((7,), (8, 9))},
    ],
    ids=str,
)
def test_beam_search_equals_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any]
) -> None:
    [ours] = engine.run(asked(sampling=Sampling(greedy=True, **options)))
    words = options.get("bad_words_ids")
    theirs = searched(babbler, **options | ({"bad_words_ids": [list(word) for word in words]} if words else {}))
    assert ours.tokens == theirs
    assert ours.text == engine.client.tokenizer.decode(theirs)
    assert ours.finish_reason == "length"
    assert not engine.rows  # no session of the token loop


def test_end_token_ends_the_answer_of_a_beam_search(engine: LocalEngine, babbler: LlamaForCausalLM) -> None:
    end = searched(babbler)[4]
    [ours] = engine.run(asked(end_tokens=(end,)))
    theirs = searched(babbler, eos_token_id=[end])
    assert ours.tokens == theirs[: theirs.index(end) + 1]
    assert ours.text == engine.client.tokenizer.decode(ours.tokens[:-1])
    assert ours.finish_reason == "stop"


def test_stop_sequence_cuts_the_text_of_a_beam_search(engine: LocalEngine) -> None:
    [whole] = engine.run(asked())
    stop = whole.text[4:6]
    [cut] = engine.run(asked(stop=[stop]))
    assert cut.text == whole.text.partition(stop)[0]
    assert cut.finish_reason == "stop"


def test_cancelled_beam_search_ends(engine: LocalEngine) -> None:
    request = Request(PROMPT, 200, Sampling(greedy=True), end_tokens=(95,), num_beams=4)
    generation = Generation(request)
    generation.cancel()
    engine._search(generation)
    assert len(next(iter(generation)).tokens) < 5


def test_beam_search_error_is_raised_where_the_result_is_awaited(engine: LocalEngine) -> None:
    with pytest.raises(ValueError, match="penalty"):
        engine.run(asked(sampling=Sampling(greedy=True, repetition_penalty=-1.0)))
