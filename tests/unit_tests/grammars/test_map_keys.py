"""Keys of maps: their schemas, those that pydantic accepts, and those that the grammar allows."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import ipaddress
import json
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field, SecretStr, StringConstraints, create_model
from random_session import answered, text
from typing_extensions import TypedDict

from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar, schema_rule
from langchain_petals.schemas.object_schema import closed_schema_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Rank(enum.IntEnum):
    """A rank."""

    FIRST = 1
    SECOND = 2


class Mixed(enum.Enum):
    """An enumeration of which pydantic accepts only the strings as keys."""

    A = "a"
    TWO = 2


KEYS: dict[str, Any] = {
    "literals": Literal["a", "b"],
    "numbers": int,
    "bounded numbers": Annotated[int, Field(ge=3, le=6)],
    "positive numbers": Annotated[int, Field(gt=0)],
    "negative numbers": Annotated[int, Field(lt=0)],
    "a thousand numbers": Annotated[int, Field(ge=0, le=1000)],
    "texts of a mixed enumeration": Mixed,
    "secrets": SecretStr,
    "booleans": bool,
    "floats": float,
    "decimals": decimal.Decimal,
    "UUIDs": uuid.UUID,
    "dates": dt.date,
    "times": dt.datetime,
    "durations": dt.timedelta,
    "texts": Colour,
    "ranks": Rank,
    "addresses": ipaddress.IPv4Address,
    "a pattern": Annotated[str, StringConstraints(pattern="^x[a-c]+$")],
    "lengths": Annotated[str, StringConstraints(min_length=2, max_length=3)],
    "numbers or nothing": int | None,
}
each_key = pytest.mark.parametrize("key", [pytest.param(key, id=name) for name, key in KEYS.items()])


def written(tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], said: str, **sampling: Any) -> str:
    """Return the answer of a model that tries to write `said`."""
    constraint = Constraint(json_grammar(schema))
    request = Request([40], 120, Sampling(**sampling or {"greedy": True}), constraint=constraint)
    return text(answered(tokenizer, request, said=[*said.encode()], seed=sampling.get("seed", 0)))


@each_key
@pytest.mark.parametrize("seed", range(3))
def test_keys_are_valid_for_pydantic(byte_tokenizer: PreTrainedTokenizerFast, key: Any, seed: int) -> None:
    model = create_model("Model", by=(dict[key, int], ...))
    schema = closed_schema_of(model)
    assert schema_rule(schema, "json_schema").left_out == ()
    answer = written(byte_tokenizer, schema, '{"by": {"', temperature=1, seed=seed)
    model.model_validate_json(answer)
    model.model_validate(json.loads(answer))  # as LangChain validates the arguments of a tool
    jsonschema.validate(json.loads(answer), schema)


def test_key_of_another_type_is_not_written(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    schema = closed_schema_of(create_model("Model", by_year=(dict[int, int], ...)))
    assert "by_year" not in json.loads(written(byte_tokenizer, schema, '{"by_year": {"by_year": 36}}'))["by_year"]
    right = '{"by_year": {"1999": 36, "-5": 1}}'
    assert written(byte_tokenizer, schema, right) == right


def test_map_with_numbers_of_a_literal_as_keys_stays_empty(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    model = create_model("Model", by=(dict[Literal[1, 2], int], ...))
    assert written(byte_tokenizer, closed_schema_of(model), '{"by": {"1": 5}}') == '{"by": {}}'


@pytest.mark.parametrize("key", [Annotated[int, Field(gt=10)], Annotated[float, Field(le=1)]])
def test_bounds_of_keys_that_no_pattern_expresses_are_reported(key: Any) -> None:
    schema = closed_schema_of(create_model("Model", by=(dict[key, int], ...)))
    with pytest.raises(InvalidRequestError, match="propertyNames"):
        json_grammar(schema)
    assert "propertyNames" in (schema_rule(schema, "json_schema", strict=False).warning or "")


def a_map(names: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "propertyNames": names, "additionalProperties": {"type": "integer"}} | more


ANYTHING = a_map({"pattern": "^a"}, additionalProperties=True)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (a_map({"type": "string"}), {"any": 1}, None),
        (a_map({"type": "string", "description": "A name.", "format": "slug"}), {"any": 1}, None),
        (a_map({}), {"any": 1}, None),
        ({"type": "object", "propertyNames": False}, {}, {"a": 1}),
        (a_map({"enum": ["a", 'say "b"', "c"]}), {"a": 1, 'say "b"': 2}, {"d": 1}),
        (a_map({"enum": [f"key {number}" for number in range(3000)]}), {"key 7": 1, "key 2999": 2}, {"key": 1}),
        (a_map({"const": "x"}), {"x": 1}, {"y": 1}),
        (a_map({"pattern": "^[a-z]+$"}), {"abc": 1}, {"A": 1}),
        (a_map({"pattern": "b"}), {"abc": 1}, {"ac": 1}),
        (a_map({"format": "date"}), {"2024-02-29": 1}, {"2023-02-29": 1}),
        (a_map({"format": "uuid"}), {"01234567-89ab-4def-8123-456789abcdef": 1}, {"0": 1}),
        (a_map({"format": "email"}), {"ada.l@example.com": 1}, {"ada": 1}),
        (a_map({"format": "ipv4"}), {"127.0.0.1": 1}, {"256.0.0.1": 1}),
        (a_map({"format": "ipv6"}), {"0:0:0:0:0:0:0:1": 1}, {"1": 1}),
        (a_map({"format": "hostname"}), {"www.example.com": 1}, {"-a": 1}),
        (a_map({"format": "uri"}), {"https://example.com/a/b": 1}, {"a": 1}),
        (a_map({"maxLength": 3}), {"abc": 1, "é花": 2}, {"abcd": 1}),
        (a_map({"minLength": 2}), {"ab": 1}, {"a": 1}),
        (a_map({"anyOf": [{"const": "q"}, {"pattern": "^[0-9]+$"}]}), {"q": 1, "12": 2}, {"r": 1}),
        (a_map({"anyOf": [{"pattern": "^a[|]b$"}, {"pattern": "^c$|^d$"}]}), {"a|b": 1, "d": 2}, {"e": 1}),
        (a_map({"oneOf": [{"const": "q"}, {"enum": ["r", "s"]}]}), {"q": 1, "s": 2}, {"t": 1}),
        (a_map({"$ref": "#/$defs/E"}, **{"$defs": {"E": {"enum": ["a", "b"]}}}), {"b": 1}, {"c": 1}),
        (a_map({"type": "integer"}), {}, {"5": 1}),
        (ANYTHING | {"properties": {"ab": {"type": "string"}, "b": {}}}, {"ab": "x", "ac": 1}, {"b": 1}),
        (a_map({"enum": ["a", "b"]}, properties={"a": {"type": "string"}}), {"a": "x", "b": 1}, {"a": "x", "c": 1}),
        (a_map({"enum": ["a"]}, properties={"a": {}, "b": {}}, additionalProperties=False), {"a": "x"}, {"b": 1}),
    ],
)  # fmt: skip
def test_property_names_are_enforced(
    byte_tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], right: Any, wrong: Any
) -> None:
    said = json.dumps(right, ensure_ascii=False)
    assert written(byte_tokenizer, schema, said) == said
    if wrong is not None:
        instead = json.loads(written(byte_tokenizer, schema, json.dumps(wrong)))
        assert instead != wrong
        jsonschema.validate(instead, schema)


@pytest.mark.parametrize(
    "schema",
    [
        a_map({"pattern": "^(?!x)"}),
        a_map({"pattern": "^a", "maxLength": 3}),
        a_map({"not": {"const": "a"}}),
        a_map({"pattern": "^a"}, properties={"ab": {"type": "string"}}),
        a_map({"pattern": "^a"}, patternProperties={"b$": {"maximum": 5}}),
    ],
)
def test_property_names_that_cannot_be_enforced_are_left_out(schema: dict[str, Any]) -> None:
    assert [each.keyword for each in schema_rule(schema, "json_schema", strict=False).left_out] == ["propertyNames"]


class ByDay(TypedDict):
    """Numbers by day."""

    numbers: dict[dt.date, int]


def test_map_keys_in_a_typed_dict_are_enforced(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    right = '{"numbers": {"2024-02-29": 5}}'
    assert written(byte_tokenizer, closed_schema_of(ByDay), right) == right
    assert written(byte_tokenizer, closed_schema_of(ByDay), '{"numbers": {"today": 5}}') != '{"numbers": {"today": 5}}'


class Tags(BaseModel):
    """Sets, from which pydantic removes duplicates."""

    names: set[str]
    numbers: frozenset[int] = frozenset()
    by_rank: dict[Rank, set[Colour]] = {}


def test_sets_may_be_written_with_duplicates(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    said = '{"names": ["a", "a"], "numbers": [5, 5], "by_rank": {"1": ["red", "red"]}}'
    assert written(byte_tokenizer, closed_schema_of(Tags), said) == said
    expected = Tags(names={"a"}, numbers=frozenset({5}), by_rank={Rank.FIRST: {Colour.RED}})
    assert Tags.model_validate_json(said) == expected
