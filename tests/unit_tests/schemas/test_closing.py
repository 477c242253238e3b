"""Which objects of a schema can be closed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from random_session import answered, text

from langchain_petals.chat.tools.schema import arguments_schema
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar
from langchain_petals.schemas.closing import closed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


NUMBER = {"type": "integer", "maximum": 9, "minimum": 0}
INHERITED = {
    "allOf": [{"$ref": "#/$defs/Base"}],
    "properties": {"y": NUMBER},
    "required": ["x", "y"],
    "$defs": {"Base": an_object(x=NUMBER) | {"required": []}},
}
COMPOSED = {
    "all of a base and more": INHERITED,
    "all of two": {"allOf": [an_object(a=NUMBER), an_object(b=NUMBER)]},
    "properties and any of two": an_object(k=NUMBER) | {"anyOf": [an_object(a=NUMBER), an_object(b=NUMBER)]},
    "properties and one of two": an_object(k=NUMBER)
    | {"oneOf": [an_object(kind={"const": "a"}, a=NUMBER), an_object(kind={"const": "b"})]},
    "properties and a reference": an_object(k=NUMBER)
    | {"$ref": "#/$defs/B%20~1", "$defs": {"B /": an_object(a=NUMBER)}},
    "a base with a base": {
        "allOf": [{"$ref": "#/definitions/B"}, an_object(z=NUMBER)],
        "definitions": {
            "A": an_object(x=NUMBER),
            "B": {"allOf": [{"$ref": "#/definitions/A"}, an_object(y=NUMBER)]},
        },
    },
    "further inside": an_object(o=INHERITED | {"$defs": {}}) | {"$defs": INHERITED["$defs"]},
    "either is required": {
        "properties": {"a": NUMBER, "b": NUMBER},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
}


@pytest.mark.parametrize("name", COMPOSED)
@pytest.mark.parametrize("close", [closed, lambda schema: arguments_schema({"parameters": schema})])
def test_closed_composed_schema_still_has_valid_values(
    tiny_tokenizer: PreTrainedTokenizerFast, name: str, close: Any
) -> None:
    schema = {"type": "object", **COMPOSED[name]}
    constraint = Constraint(json_grammar(close(schema)))
    for seed in range(3):
        said = text(answered(tiny_tokenizer, Request([40], 90, Sampling(seed=seed), constraint=constraint), seed=seed))
        jsonschema.validate(json.loads(said), schema)


def test_composed_schema_stays_open() -> None:
    schema = INHERITED | {"$defs": {**INHERITED["$defs"], "Other": an_object(o=an_object())}}
    result = closed(schema)
    assert result == INHERITED | {"$defs": {**INHERITED["$defs"], "Other": closed(schema["$defs"]["Other"])}}
    assert result["$defs"]["Other"]["properties"]["o"]["additionalProperties"] is False


def test_schema_in_two_places_is_closed_in_one_of_them() -> None:
    base = an_object(x=NUMBER)
    result = closed(an_object(plain=base, more={"allOf": [base, an_object(y=NUMBER)]}))["properties"]
    assert result["plain"]["additionalProperties"] is False
    assert "additionalProperties" not in result["more"]["allOf"][0]
    assert "additionalProperties" not in base


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [an_object(a=NUMBER), an_object(b=NUMBER)]},
        {"allOf": [{"$ref": "#/$defs/A"}], "default": {}, "$defs": {"A": an_object(a=NUMBER)}},
        an_object(a=NUMBER, b=NUMBER) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    ],
)
def test_object_whose_properties_one_part_names_is_closed(schema: dict[str, Any]) -> None:
    assert json.dumps(closed(schema)).count('"additionalProperties": false') == json.dumps(schema).count('"properties"')


def test_arguments_without_properties_are_closed() -> None:
    assert arguments_schema({"parameters": {"type": "object"}})["additionalProperties"] is False
    either = {"anyOf": [an_object(a=NUMBER), an_object(b=NUMBER)]}
    assert [each["additionalProperties"] for each in arguments_schema({"parameters": either})["anyOf"]] == [
        False,
        False,
    ]
