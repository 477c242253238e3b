"""Texts that the grammar of a schema allows, and schemas that are refused."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import UUID4, AnyUrl, Base64Bytes, BaseModel, Field, FilePath, SecretStr
from random_session import answered, text

from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar
from langchain_petals.schemas.object_schema import closed_schema_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def written(tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], said: str) -> str:
    """Return the answer of a model that tries to write `said`."""
    request = Request([40], 60, Sampling(greedy=True), constraint=Constraint(json_grammar(schema)))
    return text(answered(tokenizer, request, said=[*said.encode()]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("date", "0001-01-01"),
        ("date", "2024-02-29"),
        ("date", "2000-02-29"),
        ("date", "1999-12-31"),
        ("time", "23:59:59Z"),
        ("time", "00:00:00.123456+01:30"),
        ("date-time", "2024-02-29T12:30:00-08:00"),
        ("duration", "P1Y2M3DT4H5M6S"),
        ("duration", "P52W"),
        ("duration", "PT9999M"),
        ("uuid4", "01234567-89ab-4def-8123-456789ABCDEF"),
        ("uuid7", "01234567-89ab-7def-b123-456789abcdef"),
        ("base64", "QUJD+/8="),
        ("byte", "QQ=="),
        ("base64url", "QUJD-_8="),
    ],
)
def test_formats_can_be_written(byte_tokenizer: PreTrainedTokenizerFast, name: str, said: str) -> None:
    assert written(byte_tokenizer, {"type": "string", "format": name}, f'"{said}"') == f'"{said}"'


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("date", "0000-01-01"),
        ("date", "2023-02-29"),
        ("date", "1900-02-29"),
        ("date", "2024-04-31"),
        ("time", "00:00:60Z"),
        ("time", "24:00:00Z"),
        ("date-time", "2024-02-30T00:00:00Z"),
        ("date-time", "0000-01-01T00:00:00Z"),
        ("duration", "P10000Y"),
        ("duration", "P"),
        ("duration", "PT"),
        ("duration", "P1Y1W"),
        ("uuid4", "01234567-89ab-7def-8123-456789abcdef"),
        ("base64", "QUJ"),
        ("base64", "QUI-"),
        ("base64", "QR=="),
    ],
)
def test_malformed_values_of_a_format_cannot_be_written(
    byte_tokenizer: PreTrainedTokenizerFast, name: str, said: str
) -> None:
    assert written(byte_tokenizer, {"type": "string", "format": name}, f'"{said}"') != f'"{said}"'


class Formatted(BaseModel):
    """Strings in many formats, after an endless one."""

    note: str
    day: dt.date
    at: dt.time
    when: dt.datetime
    lasting: dt.timedelta
    key: uuid.UUID
    random_key: UUID4
    data: Base64Bytes
    host: ipaddress.IPv4Address
    link: AnyUrl


@pytest.mark.parametrize("seed", range(12))
def test_formats_fit_their_python_types_also_when_the_end_is_forced(
    byte_tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    constraint = Constraint(json_grammar(closed_schema_of(Formatted)))
    request = Request([40], 320, Sampling(temperature=1, seed=seed), constraint=constraint)
    answer = text(answered(byte_tokenizer, request, seed=seed, reluctant=[ord('"')]))
    Formatted.model_validate_json(answer)


@pytest.mark.parametrize(
    ("bounds", "outside", "inside"),
    [
        ({"exclusiveMinimum": 0, "maximum": 0.5}, "0", "0.0001"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, "0.0", "0.9999"),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, "1", "0.5"),
        ({"exclusiveMaximum": 0, "minimum": -0.5}, "-0", "-0.5"),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 1.26}, "1", "1.25"),
        ({"exclusiveMaximum": -1, "minimum": -1.6}, "-1", "-1.000001"),
        ({"exclusiveMinimum": 0, "minimum": 0.25, "maximum": 1}, "0.1", "0.25"),
        ({"exclusiveMinimum": 0, "maximum": 1e-7}, "0", "0.00000005"),
        ({"exclusiveMinimum": 3}, "3", "3.5"),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 1}, "0", "1"),
    ],
)
def test_exclusive_bounds_are_not_written(
    byte_tokenizer: PreTrainedTokenizerFast, bounds: dict[str, Any], outside: str, inside: str
) -> None:
    schema = {"type": "array", "items": {"type": "number"} | bounds, "minItems": 1, "maxItems": 1}
    assert written(byte_tokenizer, schema, f"[{inside}]") == f"[{inside}]"
    instead = json.loads(written(byte_tokenizer, schema, f"[{outside}]"))
    assert instead != json.loads(f"[{outside}]")
    jsonschema.validate(instead, schema)


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    bark: str


class Wolf(BaseModel):
    kind: Literal["wolf"] = "wolf"
    wild: bool = True


Canine = Annotated[Dog | Wolf, Field(discriminator="kind")]


class Owner(BaseModel):
    pet: Annotated[Cat | Canine, Field(discriminator="kind")]
    others: list[Canine] = []


@pytest.mark.parametrize("seed", range(4))
def test_discriminator_is_always_written(byte_tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    constraint = Constraint(json_grammar(closed_schema_of(Owner)))
    request = Request([40], 200, Sampling(temperature=1, seed=seed), constraint=constraint)
    Owner.model_validate_json(text(answered(byte_tokenizer, request, seed=seed)))
    leaving_out = '{"pet": {"lives": 9}, "others": []}'
    assert '"kind": ' in written(byte_tokenizer, closed_schema_of(Owner), leaving_out)


class Harmless(BaseModel):
    """Formats that allow all strings."""

    place: Path
    file: FilePath
    data: bytes
    word: SecretStr


def test_formats_that_allow_all_strings_are_ignored() -> None:
    assert json_grammar(closed_schema_of(Harmless))
    assert json_grammar({"type": "array", "uniqueItems": False})


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "minProperties": 3}, "may come twice"),
        ({"properties": {"default": {"type": "object", "minProperties": 3}}}, "may come twice"),
        (
            {"properties": {"a": {}, "b": {}}, "additionalProperties": False, "minProperties": 2},
            "only supported when all keys listed",
        ),
        ({"type": "string", "maxLength": float("inf")}, "cannot be written as JSON"),
    ],
)
def test_schema_that_cannot_be_enforced_is_refused_with_the_reason(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=reason):
        json_grammar(schema)


@pytest.mark.parametrize("name", ["iban", "int64", "uri-reference", "regex", "jwt", "ipvanyaddress", "", 5, None])
@pytest.mark.parametrize("kind", [{"type": "string"}, {"type": ["string", "null"]}, {"type": "integer"}, {}])
def test_unknown_format_is_ignored(name: Any, kind: dict[str, Any]) -> None:
    assert json_grammar({**kind, "format": name}) == json_grammar(kind)


def test_property_names_are_not_taken_for_keywords() -> None:
    properties = {name: {"type": "integer"} for name in ("format", "default", "minProperties", "pattern", "title")}
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    assert json_grammar(schema)
