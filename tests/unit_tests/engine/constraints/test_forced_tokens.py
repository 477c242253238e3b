"""Tokens that a grammar forces: answers are those of a loop that asks the model for each of them, in fewer steps."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_schemas import SAMPLINGS, leaves, nested, rooted
from random_session import answering

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.request import Request
from langchain_petals.errors import InvalidRequestError, PetalsError
from langchain_petals.grammars import Constraint, Trigger
from langchain_petals.grammars.builders import json_grammar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.generation import Generation
    from langchain_petals.pieces import Piece

TOKENIZERS = ("tiny_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer")
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(scope="module")
def vocabularies(request: pytest.FixtureRequest) -> dict[str, tuple[Any, Grammars]]:
    tokenizers = {name: request.getfixturevalue(name) for name in TOKENIZERS}
    return {name: (tokenizer, Grammars(tokenizer)) for name, tokenizer in tokenizers.items()}


# ---- the same answers


def result(generation: Generation) -> tuple[list[Piece], str]:
    """Return the pieces of a generation, and the error that ended it."""
    pieces: list[Piece] = []
    try:
        pieces.extend(generation)
    except PetalsError as error:
        return pieces, repr(error)
    return pieces, ""


def assert_same(tokenizer: Any, requests: Sequence[Request], grammars: Grammars, **session: Any) -> None:
    """Compare answers of the loop that runs ahead with those of the loop that asks for each token."""
    ahead = answering(tokenizer, requests, grammars, **session)
    asked = answering(tokenizer, requests, grammars, runs_ahead=False, **session)
    for one, other in zip(ahead, asked, strict=True):
        assert result(one) == result(other)
        assert other.forced_tokens == 0
    assert max(one.trips for one in ahead) <= max(other.trips for other in asked)


@st.composite
def requests_for(draw: st.DrawFn, tokenizer: Any, *constraints: Constraint | None) -> list[Request]:
    """Return a request with each constraint; prompts differ in length."""
    words = [[token] for token in draw(st.lists(st.integers(33, 90), max_size=3))]
    return [
        Request(
            draw(st.lists(st.integers(40, 60), min_size=1, max_size=draw(st.integers(1, 8)))),
            draw(st.integers(2, 60)),
            draw(SAMPLINGS),
            stop=draw(st.sampled_from([(), ("e",), ("a", '"'), (": ",)])),
            end_tokens=draw(st.sampled_from([(), (44,)])),
            top_logprobs=draw(st.sampled_from([None, 0, 2])),
            constraint=constraint,
        )
        for constraint in constraints
        for _ in words or [0]
    ]


@SLOW
@given(schema=st.recursive(leaves(), nested, max_leaves=6), data=st.data())
def test_answers_to_schemas_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], schema: dict[str, Any], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(rooted(schema)))
    except InvalidRequestError:
        return
    seed = data.draw(st.integers(0, 999))
    reluctant = [tokenizer.eos_token_id] if data.draw(st.booleans()) else []
    for request in data.draw(requests_for(tokenizer, constraint)):
        assert_same(tokenizer, [request], grammars, seed=seed, reluctant=reluctant)


THOUGHTS = ("<think>", "</think>")
CALLS = (
    Trigger("<call>", json_grammar({"properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"]}, strict=False)),
    Trigger("[x]", 'start: "{" /[a-c]+/ "}" end'),
    Trigger("{", None),
    Trigger("<", 'start: "tool>" /[0-9]*/ "</tool>"', at_start=True),
)
TALK = ("<call>", "[x]", "[x]{ab}", "{", "<", "<tool>4", *THOUGHTS, " ", "ab", "\n", "é", '{"a": "b"}')


@SLOW
@given(data=st.data())
def test_answers_with_calls_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    said = "".join(data.draw(st.lists(st.sampled_from(TALK), max_size=6)))
    triggers = data.draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=3, unique=True))
    constraint = Constraint(
        triggers=tuple(triggers),
        repeat=data.draw(st.booleans()),
        markers=(("end", data.draw(st.sampled_from(["</s>", "</x>"]))),),
        reasoning=data.draw(st.sampled_from([None, THOUGHTS])),
        reasoning_begun=data.draw(st.booleans()),
    )
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    for request in data.draw(requests_for(tokenizer, constraint)):
        assert_same(tokenizer, [request], grammars, seed=data.draw(st.integers(0, 999)), said=ids)


@SLOW
@given(schema=st.recursive(leaves(), nested, max_leaves=3), data=st.data())
def test_answers_in_lockstep_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], schema: dict[str, Any], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(rooted(schema)))
    except InvalidRequestError:
        return
    person = Constraint(json_grammar({"properties": {"name": {"type": "string"}}, "required": ["name"]}))
    drawn = data.draw(st.lists(st.sampled_from([constraint, person, None]), min_size=2, max_size=4))
    assert_same(tokenizer, data.draw(requests_for(tokenizer, *drawn)), grammars, seed=data.draw(st.integers(0, 999)))
