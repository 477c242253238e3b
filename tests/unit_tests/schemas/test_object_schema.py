"""Schemas out of whatever describes a form, and which of their objects can be closed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from pydantic import BaseModel
from random_session import answered, text
from typing_extensions import TypedDict

from langchain_petals.chat.tools.schema import arguments_schema
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar
from langchain_petals.schemas.object_schema import (
    ObjectSchema,
    closed,
    closed_schema_of,
    json_schema_of,
    object_schema_of,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class Person(BaseModel):
    """A person."""

    name: str


class PersonDict(TypedDict):
    """A person."""

    name: str


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


NUMBER = {"type": "integer", "maximum": 9, "minimum": 0}
PLAIN = an_object(name={"type": "string"})


# ---- what describes a form


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (PLAIN, ObjectSchema(PLAIN)),
        (
            PLAIN | {"title": "T", "description": "D"},
            ObjectSchema(PLAIN | {"title": "T", "description": "D"}, "T", "D"),
        ),
        ({"name": "N", "description": "D", "parameters": PLAIN}, ObjectSchema(PLAIN, "N", "D")),
        ({"name": "N", "schema": PLAIN, "strict": False}, ObjectSchema(PLAIN, "N", strict=False)),
        ({"name": "N", "input_schema": PLAIN}, ObjectSchema(PLAIN, "N")),
        (
            {"type": "function", "function": {"name": "N", "parameters": PLAIN, "strict": True}},
            ObjectSchema(PLAIN, "N", strict=True),
        ),
        ({"type": "json_schema", "json_schema": {"name": "N", "schema": PLAIN}}, ObjectSchema(PLAIN, "N")),
        ({}, ObjectSchema({})),
    ],
)
def test_dictionaries(form: dict[str, Any], expected: ObjectSchema) -> None:
    assert object_schema_of(form) == expected


@pytest.mark.parametrize("form", [Person, PersonDict])
def test_classes(form: Any) -> None:
    found = object_schema_of(form)
    assert (found.name, found.description, found.strict) == (form.__name__, "A person.", None)
    assert "additionalProperties" not in found.schema
    assert closed_schema_of(form)["additionalProperties"] is False


def test_a_form_that_is_not_strict_stays_open() -> None:
    assert "additionalProperties" not in closed_schema_of({"name": "N", "schema": PLAIN, "strict": False})


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (list[Person], "a pydantic class or a TypedDict is needed, not <class 'list'>"),
        (5, "is needed, not int"),
        ({"name": "N"}, "none of the keys 'name' is a keyword"),
        ({"name": "N", "parameters": {"x": "a number"}}, "none of the keys 'x' is a keyword"),
    ],
)
def test_what_describes_nothing_is_refused(form: Any, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        json_schema_of(form)


# ---- which objects can be closed

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
def test_composed_schemas_can_be_kept(tiny_tokenizer: PreTrainedTokenizerFast, name: str, close: Any) -> None:
    schema = {"type": "object", **COMPOSED[name]}
    constraint = Constraint(json_grammar(close(schema)))
    for seed in range(3):
        said = text(answered(tiny_tokenizer, Request([40], 90, Sampling(seed=seed), constraint=constraint), seed=seed))
        jsonschema.validate(json.loads(said), schema)


def test_what_is_composed_stays_as_it_is() -> None:
    schema = INHERITED | {"$defs": {**INHERITED["$defs"], "Other": an_object(o=an_object())}}
    result = closed(schema)
    assert result == INHERITED | {"$defs": {**INHERITED["$defs"], "Other": closed(schema["$defs"]["Other"])}}
    assert result["$defs"]["Other"]["properties"]["o"]["additionalProperties"] is False


def test_a_schema_in_two_places_is_closed_in_one_of_them() -> None:
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
def test_what_only_one_part_names_is_closed(schema: dict[str, Any]) -> None:
    assert json.dumps(closed(schema)).count('"additionalProperties": false') == json.dumps(schema).count('"properties"')


def test_no_arguments_are_none() -> None:
    assert arguments_schema({"parameters": {"type": "object"}})["additionalProperties"] is False
    either = {"anyOf": [an_object(a=NUMBER), an_object(b=NUMBER)]}
    assert [each["additionalProperties"] for each in arguments_schema({"parameters": either})["anyOf"]] == [
        False,
        False,
    ]
