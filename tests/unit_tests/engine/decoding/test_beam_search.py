"""Beam search equals transformers' own, and applies the request's options, stop sequences and end tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from local_engine import LocalEngine
from scripted_session import ScriptedSession
from transformers import LlamaConfig, LlamaForCausalLM

from langchain_petals.engine.decoding.beam_search import Beams, Preferences
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.network import CacheLimitError
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.sessions import LocalSession
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import InvalidRequestError, PromptTooLongError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from langchain_petals.pieces import Piece

PROMPT = [5, 11, 42]
NEW = 12


@pytest.fixture
def engine(babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast) -> LocalEngine:
    return LocalEngine(babbler, endless_tokenizer)


def asked(**more: Any) -> Request:
    sampling = more.pop("sampling", Sampling(greedy=True))
    return Request(PROMPT, more.pop("new", NEW), sampling, num_beams=more.pop("beams", 4), **more)


def searched(model: LlamaForCausalLM, **options: Any) -> list[int]:
    """Return the new tokens of transformers' own beam search."""
    prompt = torch.tensor([PROMPT])
    chosen = {"num_beams": 4, "do_sample": False, "max_new_tokens": NEW} | options
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), **chosen)
    return tokens[0, len(PROMPT) :].tolist()


def searched_like(model: LlamaForCausalLM, request: Request, **options: Any) -> list[int]:
    """Return the tokens of transformers' own beam search for a request, without the padding after an end token."""
    sampling, ends = request.sampling, request.end_tokens
    options |= {
        "repetition_penalty": sampling.repetition_penalty,
        "no_repeat_ngram_size": sampling.no_repeat_ngram_size,
        "bad_words_ids": [list(word) for word in sampling.bad_words_ids] or None,
        "min_new_tokens": min(sampling.min_new_tokens, request.max_new_tokens) or None,
        "eos_token_id": list(ends) or None,
        "pad_token_id": 0,
    }
    if not sampling.greedy:
        options |= {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or 0,
            "typical_p": sampling.typical_p or 1.0,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sampling.seed or 0)
        tokens = searched(model, num_beams=request.num_beams, max_new_tokens=request.max_new_tokens, **options)
    end = next((place + 1 for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[:end]


def found(model: LlamaForCausalLM, tokenizer: Any, request: Request, preferences: Preferences) -> Piece:
    """Return the piece of a beam search over a model in this process."""
    generation = Generation(request)
    Beams(generation, tokenizer, (), preferences).search(LocalSession(model), 1024)
    [piece] = generation
    return piece


# ---- equality


OPTIONS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"bad_words_ids": ((7,), (8, 9))},
    {"min_new_tokens": 5},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 1, "bad_words_ids": ((3,), (4, 5)), "min_new_tokens": 3},
]
DRAWN: list[dict[str, Any]] = [
    {},
    {"temperature": 2.0},
    {"top_p": 0.6},
    {"top_k": 40},
    {"top_k": 2},
    {"typical_p": 0.5},
    {"temperature": 1.5, "top_p": 0.9, "top_k": 60, "typical_p": 0.9, "repetition_penalty": 1.2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_beam_search_equals_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any]
) -> None:
    request = asked(sampling=Sampling(greedy=True, **options))
    [ours] = engine.run(request)
    theirs = searched_like(babbler, request)
    assert ours.tokens == theirs
    assert ours.text == engine.client.tokenizer.decode(theirs)
    assert ours.finish_reason == "length"
    assert engine.rows == [4]


@pytest.mark.parametrize("options", DRAWN, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_drawn_beams_equal_transformers(
    engine: LocalEngine, babbler: LlamaForCausalLM, options: dict[str, Any], seed: int
) -> None:
    request = asked(sampling=Sampling(seed=seed, **options), end_tokens=(90, 91))
    [ours] = engine.run(request)
    assert ours.tokens == searched_like(babbler, request)


samplings = st.builds(
    lambda options, seed: Sampling(seed=seed, **options),
    st.sampled_from(DRAWN) | st.sampled_from(OPTIONS).map(lambda options: {"greedy": True, **options}),
    st.integers(0, 2**40),
)
requests = st.builds(
    asked,
    beams=st.integers(2, 5),
    new=st.integers(1, 14),
    end_tokens=st.lists(st.integers(0, 39), max_size=4, unique=True).map(tuple),
    sampling=samplings,
)
preferences = st.builds(
    Preferences, st.sampled_from([1.0, 0.0, -1.0, 0.5, 2.0]), st.sampled_from([False, True, "never"])
)


@given(weights=st.integers(0, 1000), request=requests, preference=preferences)
def test_beams_of_any_model_equal_transformers(
    endless_tokenizer: PreTrainedTokenizerFast, weights: int, request: Request, preference: Preferences
) -> None:
    model = small_llama(weights)
    ours = found(model, endless_tokenizer, request, preference)
    theirs = searched_like(
        model, request, length_penalty=preference.length_penalty, early_stopping=preference.early_stopping
    )
    assert list(ours.tokens) == theirs


def small_llama(seed: int) -> LlamaForCausalLM:
    """Return a model with random weights that ends soon: it has few tokens, and likes all of them."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**sizes, **tokens, initializer_range=0.2)).eval()


@pytest.mark.parametrize(("penalty", "stopping"), [(1.0, True), (-2.0, False), (3.0, "never"), (None, None)], ids=str)
def test_preferences_come_from_the_models_generation_config(
    engine: LocalEngine,
    babbler: LlamaForCausalLM,
    monkeypatch: pytest.MonkeyPatch,
    penalty: float | None,
    stopping: bool | str | None,  # noqa: FBT001 - a parameter of the test
) -> None:
    monkeypatch.setattr(babbler.generation_config, "length_penalty", penalty)
    monkeypatch.setattr(babbler.generation_config, "early_stopping", stopping)
    request = asked(end_tokens=(*range(0, 96, 9),), new=40)
    [ours] = engine.run(request)
    assert ours.tokens == searched_like(babbler, request)


def test_length_penalty_decides_between_short_and_long_texts(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast
) -> None:
    request = asked(end_tokens=(*range(0, 96, 4),), new=40)
    lengths = [
        len(found(babbler, endless_tokenizer, request, Preferences(penalty, "never")).tokens) for penalty in (-5.0, 4.0)
    ]
    assert lengths[0] < 5
    assert lengths[1] == 40


def test_beam_search_with_an_extreme_length_penalty_has_an_answer(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast
) -> None:
    """The scores are below what transformers takes for no text, and it returns nothing."""
    piece = found(babbler, endless_tokenizer, asked(new=200), Preferences(-10.0))
    assert len(piece.tokens) == 200


@pytest.mark.parametrize("wrong", [None, "1", True, math.nan, math.inf, -math.inf, 1e9, 10**400, [1.0], {}], ids=str)
def test_invalid_preference_counts_as_missing(wrong: Any) -> None:
    config = {"length_penalty": wrong, "early_stopping": "sometimes" if wrong is True else wrong}
    assert Preferences.of(config) == Preferences() == Preferences.of({})


# ---- answers


def test_end_token_ends_the_answer_of_a_beam_search(engine: LocalEngine, babbler: LlamaForCausalLM) -> None:
    end = searched(babbler)[4]
    request = asked(end_tokens=(end,))
    [ours] = engine.run(request)
    assert ours.tokens == searched_like(babbler, request)
    assert ours.tokens.index(end) == len(ours.tokens) - 1
    assert ours.text == engine.client.tokenizer.decode(ours.tokens[:-1])
    assert ours.finish_reason == "stop"


def test_stop_sequence_cuts_the_text_of_a_beam_search(engine: LocalEngine) -> None:
    [whole] = engine.run(asked())
    stop = whole.text[4:6]
    [cut] = engine.run(asked(stop=[stop]))
    assert cut.text == whole.text.partition(stop)[0]
    assert cut.finish_reason == "stop"


def test_long_prompt_of_a_beam_search_comes_in_chunks(engine: LocalEngine, babbler: LlamaForCausalLM) -> None:
    sent: list[tuple[int, int]] = []
    request = asked(on_prefill=lambda done, total: sent.append((done, total)))
    [ours] = engine.run(request, settings=Settings(prefill_chunk_tokens=8, session_cache=0))
    assert sent == [(2, 3), (3, 3)]
    assert ours.tokens == searched_like(babbler, request)


# ---- ends


class ActingSession(LocalSession):
    """A session that acts before some of its steps.

    Args:
        model: The model.
        actions: Functions by the number of the step.
    """

    def __init__(self, model: LlamaForCausalLM, actions: dict[int, Any]) -> None:
        super().__init__(model)
        self.steps, self._actions = 0, actions

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        self._actions.get(self.steps, lambda: None)()
        self.steps += 1
        return super().extend(ids, order, last=last)


@pytest.mark.parametrize("step", [0, 1, 5])
def test_cancelled_beam_search_ends_after_its_step(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast, step: int
) -> None:
    generation = Generation(asked())
    session = ActingSession(babbler, {step: generation.cancel})
    beams = Beams(generation, endless_tokenizer, (), Preferences())
    beams.search(session, 1024)
    assert session.steps == step + 1
    assert beams.done


def test_cancelled_beam_search_reads_no_more_of_its_prompt(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast
) -> None:
    generation = Generation(asked())
    session = ActingSession(babbler, {1: generation.cancel})
    Beams(generation, endless_tokenizer, (), Preferences()).search(session, 4)
    assert session.steps == 2


def test_beam_search_on_servers_with_little_room_is_shorter(
    engine: LocalEngine, babbler: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers say so at the third step, and get a new search that fits."""

    def refuse() -> None:
        raise CacheLimitError(9)

    sessions = iter([ActingSession(babbler, {3: refuse}), ActingSession(babbler, {})])
    needs: list[int] = []

    def open_session(rows: int, needed: int, *_: Any) -> LocalSession:
        assert rows == 4
        needs.append(needed)
        return next(sessions)

    monkeypatch.setattr(engine.client, "open_session", open_session)
    [ours] = engine.run(asked())
    assert needs == [15, 9]
    assert ours.tokens == searched(babbler, max_new_tokens=6)


def test_prompt_without_room_for_an_answer_is_refused(
    babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast
) -> None:
    beams = Beams(Generation(asked()), endless_tokenizer, (), Preferences())
    with pytest.raises(PromptTooLongError, match="3"):
        beams.shorten(3)


def test_beam_search_error_is_raised_where_the_result_is_awaited(engine: LocalEngine) -> None:
    with pytest.raises(InvalidRequestError, match="penalty"):
        engine.run(asked(sampling=Sampling(greedy=True, repetition_penalty=-1.0)))


def everything_but(*tokens: int) -> tuple[tuple[int, ...], ...]:
    return tuple((token,) for token in range(96) if token not in tokens)


@pytest.mark.parametrize("greedy", [True, False])
def test_options_that_forbid_every_token_are_refused(engine: LocalEngine, *, greedy: bool) -> None:
    with pytest.raises(InvalidRequestError, match="leave no token to choose"):
        engine.run(asked(sampling=Sampling(greedy=greedy, bad_words_ids=everything_but())))


@pytest.mark.parametrize("greedy", [True, False])
def test_search_that_cannot_go_on_gives_its_finished_text(engine: LocalEngine, *, greedy: bool) -> None:
    """Token 7 may come once; then only the end token is left."""
    sampling = Sampling(greedy=greedy, bad_words_ids=everything_but(7, 95), no_repeat_ngram_size=1, min_new_tokens=1)
    [ours] = engine.run(asked(sampling=sampling, end_tokens=(95,)))
    assert ours.tokens == [7, 95]
    assert ours.finish_reason == "stop"


def test_dead_end_without_a_finished_text_is_an_error(engine: LocalEngine) -> None:
    sampling = Sampling(greedy=True, bad_words_ids=everything_but(7), no_repeat_ngram_size=1)
    with pytest.raises(InvalidRequestError, match="leave no token to choose"):
        engine.run(asked(sampling=sampling))


@pytest.mark.parametrize("greedy", [True, False])
def test_end_token_that_the_model_does_not_have_ends_no_beam(engine: LocalEngine, *, greedy: bool) -> None:
    sampling = Sampling(greedy=greedy, seed=1, min_new_tokens=5)
    [ours] = engine.run(asked(sampling=sampling, end_tokens=(-1, 96, 500)))
    assert len(ours.tokens) == NEW


def test_more_continuations_than_can_be_drawn_from_are_refused(endless_tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = 2**23 + 1
    session = ScriptedSession([PROMPT] * 2, [[1], [1]], vocabulary=vocabulary)
    beams = Beams(Generation(asked(sampling=Sampling(), beams=2)), endless_tokenizer, (), Preferences())
    with pytest.raises(InvalidRequestError, match=f"2 beams of a model with {vocabulary} tokens .* at most 1"):
        beams.search(session, 1024)
