"""The JSON schema of an object from any source: a pydantic class, a dataclass, a TypedDict, or a schema."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, get_origin

from jsonschema import Draft202012Validator
from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas.closing import closed
from langchain_petals.schemas.json_schema import path_of, subschemas
from langchain_petals.schemas.pydantic_schemas import ExactJsonSchema, InputJsonSchema
from langchain_petals.schemas.typed_dicts import described_typed_dict

PARAMETERS = ("parameters", "input_schema", "inputSchema")
"""The keys of a tool's schema in the formats of OpenAI, Anthropic and the Model Context Protocol."""


@dataclass(frozen=True)
class ObjectSchema:
    """The schema of an object, and what its source says about it.

    Attributes:
        schema: JSON schema, as it was given.
        name: Name of the object; None if the source has none.
        description: Purpose of the object; None if the source has none.
        strict: Whether objects may have only the properties that the schema names; None if the source does not say.
    """

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


def object_schema_of(source: Any) -> ObjectSchema:
    """Return the schema of an object with its name and description.

    Args:
        source: A JSON schema, alone or inside of OpenAI's `{"name": ..., "schema": ...}`; a function or tool of
            OpenAI, or a tool of Anthropic or the Model Context Protocol; a pydantic class of version 2 or 1; a
            TypedDict; or a dataclass.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(source, dict):
        return _from_dictionary(source)
    if not is_schema_class(source):
        given = get_origin(source) or (source if isinstance(source, type) else type(source)).__name__
        msg = f"a JSON schema, a pydantic class or a TypedDict is needed, not {given}; a dataclass is accepted, too"
        raise InvalidRequestError(msg)
    schema = schema_of_class(source)
    return ObjectSchema(schema, schema.get("title"), schema.get("description"))


def is_schema_class(source: Any) -> bool:
    """Whether this is a pydantic class of version 2 or 1, a dataclass or a TypedDict."""
    return is_typeddict(source) or is_instance_class(source)


def is_instance_class(source: Any) -> bool:
    """Whether `instance_of` can make instances of this: of a pydantic class of version 2 or 1, or of a dataclass."""
    if not isinstance(source, type):
        return False
    return issubclass(source, BaseModel) or _is_pydantic_v1(source) or dataclasses.is_dataclass(source)


def _is_pydantic_v1(cls: type) -> bool:
    # recognised by attributes: importing pydantic.v1 warns on Python 3.14, and `__fields__` warns on version 2
    return not issubclass(cls, BaseModel) and hasattr(cls, "__fields__") and hasattr(cls, "parse_obj")


def instance_of(cls: Any, value: Any) -> Any:
    """Return an instance of a pydantic class of version 2 or 1, or of a dataclass.

    Pydantic reads the value as JSON: strict classes accept a string for a date in JSON, but not in Python.

    Raises:
        ValueError: The value does not fit; this is pydantic's own error, which says where.
    """
    return cls.parse_obj(value) if _is_pydantic_v1(cls) else TypeAdapter(cls).validate_json(json.dumps(value))


def schema_of_class(cls: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class of version 2 or 1, a dataclass or a TypedDict.

    Unlike LangChain's conversion, the schema keeps definitions, so that a class may contain itself. It also restricts
    the keys of maps. It allows duplicates in sets, since pydantic removes them.

    Raises:
        InvalidRequestError: The class has no JSON schema.
    """
    try:
        if is_typeddict(cls):  # nothing converts its values: no duplicates are removed from its sets
            schema = TypeAdapter(described_typed_dict(cls)).json_schema(schema_generator=ExactJsonSchema)
        elif _is_pydantic_v1(cls):
            schema = cls.schema()
            for _, part in subschemas(schema):
                part.pop("uniqueItems", None)  # of a set; for a list, the class itself refuses duplicates
        else:
            schema = TypeAdapter(cls).json_schema(schema_generator=InputJsonSchema)
    except (PydanticUserError, ValueError, AttributeError, NameError, TypeError) as error:
        msg = f"no JSON schema can be made of {cls.__name__}: {error}"
        raise InvalidRequestError(msg) from error
    reference = schema.get("$ref")
    if reference is None:
        return dict(schema)
    *_, definitions, name = path_of(reference)  # of a class that contains itself
    return {**schema[definitions][name], definitions: schema[definitions]}


def closed_schema_of(source: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return the closed schema of an object; see `closed`.

    Args:
        source: An `ObjectSchema`, or a source of one; see `object_schema_of`. Its description becomes the schema's.
        strict: Used where the source does not say whether it is strict. False leaves objects open.
    """
    found = source if isinstance(source, ObjectSchema) else object_schema_of(source)
    description = {} if found.description is None else {"description": found.description}
    schema = {**description, **found.schema}
    return schema if (strict if found.strict is None else found.strict) is False else closed(schema)


def _from_dictionary(source: dict[str, Any]) -> ObjectSchema:
    for wrapper in ("function", "json_schema"):
        if source.get("type") == wrapper and isinstance(source.get(wrapper), dict):
            return _from_dictionary(source[wrapper])
    for key in ("schema", *PARAMETERS):
        if "name" in source and isinstance(source.get(key), dict):
            inner = _from_dictionary(source[key])
            strict = source.get("strict", inner.strict)
            return ObjectSchema(inner.schema, source["name"], source.get("description", inner.description), strict)
    if source and source.keys().isdisjoint(Draft202012Validator.VALIDATORS):  # keywords that restrict values
        msg = (
            "a dictionary must be a JSON schema, or an OpenAI function or tool that contains one; none of the keys "
            f"{', '.join(map(repr, source))} is a keyword of JSON schema"
        )
        raise InvalidRequestError(msg)
    return ObjectSchema(source, source.get("title"), source.get("description"))
