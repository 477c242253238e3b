"""Schemas of objects from all sources."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas.object_schema import ObjectSchema, closed_schema_of, object_schema_of


class Person(BaseModel):
    """A person."""

    name: str


class PersonDict(TypedDict):
    """A person."""

    name: str


PLAIN = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@pytest.mark.parametrize(
    ("source", "expected"),
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
def test_dictionary_gives_schema_name_description_and_strictness(
    source: dict[str, Any], expected: ObjectSchema
) -> None:
    assert object_schema_of(source) == expected


@pytest.mark.parametrize("source", [Person, PersonDict])
def test_class_gives_name_and_description_and_is_closed(source: Any) -> None:
    found = object_schema_of(source)
    assert (found.name, found.description, found.strict) == (source.__name__, "A person.", None)
    assert "additionalProperties" not in found.schema
    assert closed_schema_of(source)["additionalProperties"] is False


def test_schema_that_is_not_strict_stays_open() -> None:
    assert "additionalProperties" not in closed_schema_of({"name": "N", "schema": PLAIN, "strict": False})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (list[Person], "a pydantic class or a TypedDict is needed, not <class 'list'>"),
        (5, "is needed, not int"),
        ({"name": "N"}, "none of the keys 'name' is a keyword"),
        ({"name": "N", "parameters": {"x": "a number"}}, "none of the keys 'x' is a keyword"),
    ],
)
def test_source_without_a_schema_is_refused(source: Any, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        object_schema_of(source)
