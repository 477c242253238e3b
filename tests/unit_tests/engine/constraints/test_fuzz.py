"""Answers to random schemas from random models: each one fits its schema and its budget, or is an error."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_session import answering, text

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar, schema_check, schema_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.engine.generation import Generation

TOKENIZERS = ("tiny_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer")
SCHEMAS, ANSWERS = 400, 5  # together 2,000 cases

KEYS = st.sampled_from(["a", "b", "a b", "ключ", '"'])
PATTERNS = st.sampled_from(
    [
        *(
            "^[a-c]+$",
            "[0-9]{2}",
            "^(x|yy)z?$",
            r"^\w{3}",
            "abc",
            r"\.(jpg|png)$",
            "^.*[!?]$",
            r"^[^@\s]+@[^@\s]+\.\w+$",
        ),
        *(r"^v\d+\.\d+$", r"^\d+ (EUR|USD)$", "^SELECT .* FROM .*;$", "é$", r"^(\w+ ){2}\w+$", r'^".*"$', "[A-Z]{2,}-"),
    ]
)
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(-999, 9999), st.text(max_size=5))


@st.composite
def _leaves(draw: st.DrawFn) -> dict[str, Any]:
    low, more = draw(st.integers(-30, 30)), draw(st.integers(0, 300))
    return draw(
        st.sampled_from(
            [
                {},
                {"type": "string"},
                {"type": "string", "minLength": abs(low) // 8, "maxLength": abs(low) // 8 + more // 50},
                {"type": "string", "pattern": draw(PATTERNS)},
                {"type": "string", "format": draw(st.sampled_from(["date", "time", "date-time", "uuid", "ipv4"]))},
                {"type": draw(st.sampled_from(["integer", "number"])), "minimum": low, "maximum": low + more},
                {"type": "integer", "exclusiveMinimum": low, "multipleOf": more % 7 + 1},
                {"type": draw(st.sampled_from(["boolean", "null", "integer", "number", "object", "array"]))},
                {"type": draw(st.lists(st.sampled_from(["null", "string", "integer"]), min_size=1, unique=True))},
                {"const": draw(ANYTHING)},
                {"enum": draw(st.lists(ANYTHING, min_size=1, max_size=4))},
            ]
        )
    )


def _nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(_arrays(inner), _objects(inner), _unions(inner))


@st.composite
def _arrays(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    least = draw(st.integers(0, 2))
    schema: dict[str, Any] = {"type": "array", "minItems": least, "maxItems": least + draw(st.integers(1, 3))}
    kind = draw(st.sampled_from(["list", "tuple", "both"]))
    if kind != "list":
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=2))
    return (
        {"type": "array", "prefixItems": schema["prefixItems"], "items": False}
        if kind == "tuple"
        else (schema | {"items": draw(inner)})
    )


@st.composite
def _objects(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    properties = draw(st.dictionaries(KEYS, inner, max_size=3))
    required = [key for key in properties if draw(st.booleans())]
    schema = {"type": "object", "properties": properties, "required": required}
    return schema | draw(st.one_of(st.just({}), st.fixed_dictionaries({"additionalProperties": st.booleans() | inner})))


@st.composite
def _unions(draw: st.DrawFn, inner: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"anyOf": draw(st.lists(inner, min_size=1, max_size=3))}
    # recursion, with a way out
    link = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
    return {"type": "object", "properties": {"value": draw(inner), "next": link}, "required": ["value", "next"]}


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([None, 1, 5]),
    min_p=st.sampled_from([None, 0.2]),
    typical_p=st.sampled_from([None, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.5]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
    min_new_tokens=st.sampled_from([0, 9]),
    greedy=st.booleans(),
    seed=st.integers(0, 99),
)


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
@given(schema=st.recursive(_leaves(), _nested, max_leaves=6), data=st.data())
def test_every_answer_fits_its_schema_and_its_budget(
    vocabularies: dict[str, tuple[Any, Grammars]],
    outcomes: Counter[str],
    schema: dict[str, Any],
    data: st.DataObject,
) -> None:
    if "#/$defs/node" in json.dumps(schema):
        schema = {"$ref": "#/$defs/node", "$defs": {"node": schema}}
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
    schema = draw(_nested(inner))
    extra: dict[str, st.SearchStrategy[Any]] = {
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "contains": inner,
        "oneOf": st.lists(inner, min_size=1, max_size=2),
        "allOf": st.lists(inner, min_size=1, max_size=2),
        "propertyNames": st.one_of(_leaves(), st.builds(lambda keys: {"enum": keys}, st.lists(KEYS, max_size=3))),
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
@given(schema=st.recursive(_leaves(), _with_unknown_keywords, max_leaves=5), data=st.data())
def test_parts_of_a_schema_that_a_grammar_loses_are_reported(
    vocabularies: dict[str, tuple[Any, Grammars]], schema: dict[str, Any], data: st.DataObject
) -> None:
    if "#/$defs/node" in json.dumps(schema):
        schema = {"$ref": "#/$defs/node", "$defs": {"node": schema}}
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
