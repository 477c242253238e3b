"""Each sampling option gives the tokens of transformers' `generate`, with the same weights and seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from local_engine import LocalEngine
from transformers import LogitsProcessorList

from langchain_petals.engine.decoding.logit_filters import keep_min_p
from langchain_petals.engine.decoding.sampling import Sampler
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

PROMPT = [5, 11, 42, 7, 11, 42]
NEW = 24
SEEDS = [0, 1, 2, 1234567, 2**40, 2**63 - 1, -1]

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "cold": {"temperature": 0.3},
    "hot": {"temperature": 3.0},
    "top_p": {"top_p": 0.6},
    "tiny top_p": {"top_p": 1e-9},
    "top_k": {"top_k": 4},
    "top_k beyond the vocabulary": {"top_k": 1000},
    "typical_p": {"typical_p": 0.4},
    "repetition_penalty": {"repetition_penalty": 1.7},
    "encouraged repetition": {"repetition_penalty": 0.6},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "no token twice": {"no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": tuple((token,) for token in range(0, 96, 2))},
    "longer bad words": {"bad_words_ids": tuple((a, b) for a in range(96) for b in (0, 50))},
    "all": {
        "temperature": 1.5,
        "top_p": 0.9,
        "top_k": 30,
        "typical_p": 0.8,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": ((3,), (4, 5)),
    },
}
of_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@pytest.fixture
def engine(babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast) -> LocalEngine:
    return LocalEngine(babbler, endless_tokenizer)


def asked(*, seed: int | None = None, prompt: Sequence[int] = PROMPT, new: int = NEW, **options: Any) -> Request:
    ends = tuple(options.pop("end_tokens", ()))
    top = options.pop("top_logprobs", None)
    return Request(list(prompt), new, Sampling(seed=seed, **options), end_tokens=ends, top_logprobs=top)


def generated(model: LlamaForCausalLM, request: Request, **more: Any) -> tuple[list[int], list[torch.Tensor]]:
    """Return the new tokens of transformers' `generate` for a request, and the final scores of each step."""
    sampling = request.sampling
    options: dict[str, Any] = {
        "do_sample": not sampling.greedy,
        "repetition_penalty": sampling.repetition_penalty,
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
        "bad_words_ids": [list(word) for word in sampling.bad_words_ids] or None,
        "min_new_tokens": sampling.min_new_tokens or None,
        "eos_token_id": list(request.end_tokens) or None,
    }
    if not sampling.greedy:
        options |= {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "typical_p": sampling.typical_p or 1.0,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sampling.seed or 0)
        out = model.generate(
            torch.tensor([request.prompt_ids]),
            attention_mask=torch.ones(1, len(request.prompt_ids), dtype=torch.int64),
            max_new_tokens=request.max_new_tokens,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
            **more,
        )
    return out.sequences[0, len(request.prompt_ids) :].tolist(), [scores[0] for scores in out.scores]


# ---- tokens


@of_options
def test_greedy_tokens_equal_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any]
) -> None:
    request = asked(greedy=True, **options)
    [ours] = engine.run(request)
    assert ours.tokens == generated(babbler, request)[0]


@of_options
@pytest.mark.parametrize("seed", SEEDS[:2])
def test_sampled_tokens_equal_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any], seed: int
) -> None:
    request = asked(seed=seed, **options)
    [ours] = engine.run(request)
    assert ours.tokens == generated(babbler, request)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_sampled_tokens_equal_transformers_for_any_seed(
    engine: LocalEngine, babbler: LlamaForCausalLM, seed: int
) -> None:
    request = asked(seed=seed)
    [ours] = engine.run(request)
    assert ours.tokens == generated(babbler, request)[0]


def test_each_option_changes_the_tokens(engine: LocalEngine) -> None:
    """Without this, the comparisons above would prove nothing."""

    def answers(options: dict[str, Any]) -> list[list[int]]:
        requests = [asked(greedy=True, **options), *(asked(seed=seed, **options) for seed in SEEDS[:3])]
        return [each.tokens for each in engine.run_alone(requests)]

    plain = answers({})
    same = {name for name, options in OPTIONS.items() if answers(options) == plain}
    assert same == {"plain", "top_k beyond the vocabulary"}


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("min_new_tokens", [0, 1, 5, NEW])
def test_end_tokens_with_min_new_tokens_equal_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, *, min_new_tokens: int, greedy: bool
) -> None:
    freely = engine.run(asked(seed=3, greedy=greedy))[0].tokens
    ends = (freely[1], freely[3])
    request = asked(seed=3, greedy=greedy, end_tokens=ends, min_new_tokens=min_new_tokens)
    [ours] = engine.run(request)
    assert ours.tokens == generated(babbler, request)[0]
    assert min_new_tokens < len(ours.tokens) or ours.finish_reason == "length"
    assert not set(ours.tokens[:-1]) & set(ends)


def test_end_tokens_of_the_model_may_be_several(
    engine: LocalEngine, babbler: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    freely = engine.run(asked(greedy=True))[0].tokens
    for ends in ([freely[6], freely[2]], [freely[4]], freely[4]):
        monkeypatch.setattr(babbler.generation_config, "eos_token_id", ends)
        [ours] = engine.run(asked(greedy=True))
        first = min(freely.index(end) for end in (ends if isinstance(ends, list) else [ends]))
        assert ours.tokens == freely[: first + 1]
        assert ours.finish_reason == "stop"


# ---- min_p, which transformers has only from 4.39 on


@pytest.mark.parametrize("min_p", [0.001, 0.1, 0.5, 1.0])
def test_min_p_keeps_tokens_above_its_threshold(min_p: float) -> None:
    scores = torch.randn(3, 50, generator=torch.Generator().manual_seed(5)) * 3
    kept = keep_min_p(min_p, scores)
    for row, left in zip(scores.tolist(), kept.tolist(), strict=True):
        least = max(row) + math.log(min_p)
        assert left == [pytest.approx(score) if score >= least else -math.inf for score in row]


@pytest.mark.parametrize("min_p", [0.1, 0.4])
def test_sampled_tokens_with_min_p_equal_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, min_p: float
) -> None:
    request = asked(seed=2, min_p=min_p)
    [ours] = engine.run(request)
    theirs, _ = generated(
        babbler, request, logits_processor=LogitsProcessorList([lambda _, scores: keep_min_p(min_p, scores)])
    )
    assert ours.tokens == theirs
    assert ours.tokens != engine.run(asked(seed=2))[0].tokens


# ---- log-probabilities


@of_options
@pytest.mark.parametrize("greedy", [True, False])
def test_logprobs_are_those_of_the_distribution_sampled_from(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any], *, greedy: bool
) -> None:
    request = asked(seed=7, greedy=greedy, top_logprobs=5, **options)
    [ours] = engine.run(request)
    tokens, scores = generated(babbler, request)
    assert [each.token for each in ours.logprobs] == tokens
    for each, step in zip(ours.logprobs, scores, strict=True):
        expected = step.log_softmax(-1)
        assert each.logprob == pytest.approx(float(expected[each.token]), abs=1e-4)
        values = [value for _, value in each.top]
        possible = expected[expected > -math.inf].sort(descending=True).values[:5]
        assert values == pytest.approx(possible.tolist(), abs=1e-4)
        assert [float(expected[token]) for token, _ in each.top] == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize(("top", "reported"), [(None, None), (0, 0), (1, 1), (96, 96), (1000, 96)])
def test_as_many_top_logprobs_as_requested_are_reported(
    engine: LocalEngine, top: int | None, reported: int | None
) -> None:
    [ours] = engine.run(asked(seed=1, top_logprobs=top))
    assert [len(each.top) for each in ours.logprobs] == ([] if reported is None else [reported] * NEW)


def test_sampled_token_need_not_be_among_the_likeliest(engine: LocalEngine) -> None:
    [ours] = engine.run(asked(seed=1, temperature=3.0, top_logprobs=1))
    assert any(each.token != each.top[0][0] for each in ours.logprobs)
    assert all(each.logprob <= each.top[0][1] for each in ours.logprobs)


# ---- seeds


def test_seed_makes_an_answer_repeatable(engine: LocalEngine) -> None:
    first, again, other = engine.run_alone([asked(seed=5), asked(seed=5), asked(seed=6)])
    assert first.tokens == again.tokens != other.tokens


def test_without_a_seed_answers_differ(engine: LocalEngine) -> None:
    first, again = engine.run_alone([asked(), asked()])
    assert first.tokens != again.tokens


def test_global_random_state_is_neither_used_nor_changed(engine: LocalEngine) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    [first] = engine.run(asked(seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    [again] = engine.run(asked(seed=5))
    assert first.tokens == again.tokens


def test_rows_of_a_batch_get_the_tokens_that_they_would_get_alone(engine: LocalEngine) -> None:
    """Rows have their own options, seeds, lengths and end tokens; one row has no seed."""
    ends = tuple(range(0, 96, 9))
    requests = [
        asked(seed=index, prompt=PROMPT[: 1 + index % 6], new=24 + index, top_logprobs=index % 2, **options)
        for index, options in enumerate(OPTIONS.values())
    ]
    requests[3] = replace(requests[3], end_tokens=ends)
    requests.append(asked(greedy=True, end_tokens=ends))
    alone = engine.run_alone(requests)
    engine.rows.clear()
    together = engine.run(asked(), *requests)[1:]
    assert engine.rows == [len(requests) + 1]
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert [each.finish_reason for each in together] == [each.finish_reason for each in alone]


# ---- options that are refused


@pytest.mark.parametrize(
    "options",
    [{"seed": 2**70}, {"temperature": -1.0}, {"top_k": -1}, {"repetition_penalty": -1.0}, {"bad_words_ids": ((-1,),)}],
    ids=str,
)
def test_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="these sampling options cannot be used"):
        Sampler(Sampling(**options), prompt_length=1, end_tokens=())


@pytest.mark.parametrize("greedy", [True, False])
def test_options_that_forbid_every_token_are_refused(engine: LocalEngine, *, greedy: bool) -> None:
    nothing = tuple((token,) for token in range(96))
    with pytest.raises(InvalidRequestError, match="leave no token to choose"):
        engine.run(asked(greedy=greedy, bad_words_ids=nothing))


# ---- tokens that depend on no logits


def only(*tokens: int, size: int = 96) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=np.bool_)
    mask[list(tokens)] = True
    return mask


@pytest.mark.parametrize(
    "options",
    [
        {"greedy": True},
        {"seed": 1},
        {"seed": 1, "temperature": 3.0, "top_p": 0.3, "top_k": 2, "min_p": 0.5, "typical_p": 0.5},
        {
            "seed": 2,
            "repetition_penalty": 1.5,
            "no_repeat_ngram_size": 1,
            "bad_words_ids": ((5,),),
            "min_new_tokens": 9,
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("top", [None, 0, 3])
def test_a_token_without_alternative_is_taken_as_it_would_be_chosen(options: dict[str, Any], top: int | None) -> None:
    logits = torch.randn(40, 96, generator=torch.Generator().manual_seed(3))
    taking, choosing = (Sampler(Sampling(**options), prompt_length=1, end_tokens=[5], vocabulary=96) for _ in range(2))
    ids = [7]
    for number, scores in enumerate(logits):
        allowed = only(5) if number % 3 else None
        expected = choosing.choose(ids, scores, top, allowed)
        taken = taking.take_only(allowed, top)
        assert (taken is None) == (allowed is None)
        assert (taken or taking.choose(ids, scores, top, allowed)) == expected
        ids.append(expected[0])


@pytest.mark.parametrize(
    ("mask", "vocabulary", "token"),
    [
        (only(5), 96, 5),
        (only(5, 6), 96, None),
        (only(), 96, None),
        (None, 96, None),
        (only(5, 95), 90, 5),  # a tokenizer with more tokens than the model
        (only(95), 90, None),
        (only(5), 200, 5),
        (only(5), None, None),
        (only(5, 95), None, None),
    ],
)
def test_a_token_is_taken_if_it_is_the_only_one_that_the_model_has(
    mask: NDArray[np.bool_] | None, vocabulary: int | None, token: int | None
) -> None:
    sampler = Sampler(Sampling(greedy=True), prompt_length=1, end_tokens=[], vocabulary=vocabulary)
    taken = sampler.take_only(mask)
    assert (taken and taken[0]) == token


def test_a_bad_word_that_the_model_does_not_have_is_left_to_the_choice_to_refuse() -> None:
    sampler = Sampler(Sampling(bad_words_ids=((3,), (4, 96))), prompt_length=1, end_tokens=[], vocabulary=96)
    assert sampler.take_only(only(5)) is None
    with pytest.raises(InvalidRequestError, match="does not have"):
        sampler.choose([7], torch.zeros(96), None, only(5))


# ---- cost


class Unread(Sequence[int]):
    """A row whose tokens must not be read."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        msg = f"token {index} was read"
        raise AssertionError(msg)

    def __iter__(self) -> Iterator[int]:
        msg = "the tokens were read"
        raise AssertionError(msg)


@pytest.mark.parametrize(
    "options",
    [
        {"greedy": True},
        {},
        {"temperature": 0.5, "top_p": 0.9, "top_k": 30, "min_p": 0.01, "typical_p": 0.9},
        {"min_new_tokens": 5},
        {"greedy": True, "min_new_tokens": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("allowed", [None, np.ones(96, dtype=np.bool_)], ids=["free", "constrained"])
def test_token_ids_are_not_read_for_options_that_do_not_need_them(
    options: dict[str, Any], allowed: NDArray[np.bool_] | None
) -> None:
    sampler = Sampler(Sampling(seed=1, **options), prompt_length=8_000, end_tokens=[7])
    token, logprobs = sampler.choose(Unread(8_000), torch.arange(96.0), 3, allowed)
    assert 0 <= token < 96
    assert logprobs is not None


def test_min_new_tokens_does_not_count_the_prompt() -> None:
    sampler = Sampler(Sampling(greedy=True, min_new_tokens=5), prompt_length=8_000, end_tokens=[95])
    chosen = [sampler.choose(Unread(8_000 + new), torch.arange(96.0))[0] for new in range(7)]
    assert chosen == [94] * 5 + [95] * 2
