"""Answers to random schemas from random models: each one fits its schema and its budget, or is an error."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_schemas import KEYS, SAMPLINGS, leaves, nested, rooted
from random_session import answering, text

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.request import Request
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar, schema_check, schema_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.engine.generation import Generation

TOKENIZERS = ("tiny_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer")
SCHEMAS, ANSWERS = 400, 5  # together 2,000 cases


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Counter[str]]:
    """Count the outcomes of the cases; there must be enough of each."""
    counter: Counter[str] = Counter()
    yield counter
    assert counter.total() >= SCHEMAS * ANSWERS
    assert min(counter[each] for each in ("valid", "too small")) > counter.total() / 10, counter
    assert counter["refused"] < counter.total() / 5, counter


@pytest.fixture(scope="module")
def vocabularies(request: pytest.FixtureRequest) -> dict[str, tuple[Any, Grammars]]:
    tokenizers = {name: request.getfixturevalue(name) for name in TOKENIZERS}
    return {name: (tokenizer, Grammars(tokenizer)) for name, tokenizer in tokenizers.items()}


@settings(max_examples=SCHEMAS, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(schema=st.recursive(leaves(), nested, max_leaves=6), data=st.data())
def test_every_answer_fits_its_schema_and_its_budget(
    vocabularies: dict[str, tuple[Any, Grammars]],
    outcomes: Counter[str],
    schema: dict[str, Any],
    data: st.DataObject,
) -> None:
    schema = rooted(schema)
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(schema))
    except InvalidRequestError:
        outcomes["refused"] += ANSWERS
        return
    requests = [
        Request([40], data.draw(st.integers(2, 60)), data.draw(SAMPLINGS), constraint=constraint)
        for _ in range(ANSWERS)
    ]
    reluctant = [tokenizer.eos_token_id] if data.draw(st.booleans()) else []
    generations = answering(tokenizer, requests, grammars, seed=data.draw(st.integers(0, 999)), reluctant=reluctant)
    for generation in generations:
        outcome = _outcome(generation, schema)
        assert outcome in ("valid", "too small")
        outcomes[outcome] += 1


def _outcome(generation: Generation, schema: dict[str, Any]) -> str:
    budget = generation.request.max_new_tokens
    try:
        pieces = list(generation)
    except OutputLimitError as error:
        # found out before anything was generated: no answer that has begun is cut off
        return "too small" if not error.generated and (error.needed or 0) > budget else f"cut off: {error}"
    assert pieces[-1].generated <= budget
    jsonschema.validate(json.loads(text(pieces)), schema)
    return "valid"


@st.composite
def _with_unknown_keywords(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    schema = draw(nested(inner))
    extra: dict[str, st.SearchStrategy[Any]] = {
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "contains": inner,
        "oneOf": st.lists(inner, min_size=1, max_size=2),
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "propertyNames": st.one_of(leaves(), st.builds(lambda keys: {"enum": keys}, st.lists(KEYS, max_size=3))),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "^(?!a)"]), inner, max_size=2),
        "dependentRequired": st.just({"a": ["b"]}),
        "unevaluatedProperties": st.booleans(),
        "uniqueItems": st.booleans(),
        "minProperties": st.integers(0, 3),
        "pattern": st.sampled_from(["^(?!-)", r"(.)\1", "^a"]),
    }
    for keyword in draw(st.lists(st.sampled_from(sorted(extra)), min_size=1, max_size=3, unique=True)):
        schema[keyword] = draw(extra[keyword])
    return schema


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(schema=st.recursive(leaves(), _with_unknown_keywords, max_leaves=5), data=st.data())
def test_parts_of_a_schema_that_a_grammar_loses_are_reported(
    vocabularies: dict[str, tuple[Any, Grammars]], schema: dict[str, Any], data: st.DataObject
) -> None:
    schema = rooted(schema)
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    expressed, check = schema_rule(schema, "json_schema", strict=False), schema_check(schema)
    constraint = Constraint(json_grammar(schema, strict=False))
    requests = [Request([40], 60, data.draw(SAMPLINGS), constraint=constraint) for _ in range(3)]
    for generation in answering(tokenizer, requests, grammars, seed=data.draw(st.integers(0, 999))):
        try:
            answer = json.loads(text(list(generation)))
        except OutputLimitError:
            continue
        fits = jsonschema.Draft202012Validator(schema).is_valid(answer)
        # of a format that tells branches of `oneOf` apart, jsonschema knows nothing
        assert (check.problem(answer) is None) == fits or "format" in json.dumps(schema)
        assert fits or expressed.left_out or expressed.ignored
