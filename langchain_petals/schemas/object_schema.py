"""The JSON schema of whatever describes a form: a pydantic class, a dataclass, a TypedDict, a schema itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from typing_extensions import is_typeddict

from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas.json_schema import path_of, subschemas
from langchain_petals.schemas.pydantic_schemas import ExactJsonSchema, InputJsonSchema
from langchain_petals.schemas.typed_dicts import described_typed_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.schemas.json_schema import Path

_KEYWORDS = frozenset(
    {"$ref", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if"}
    | {"properties", "patternProperties", "additionalProperties", "propertyNames", "required"}
    | {"minProperties", "maxProperties", "items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"}
    | {"pattern", "format", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
"""Keywords of JSON schema that say something about a value."""

DEFINITIONS = ("$defs", "definitions")
"""Keywords that hold schemas for others to refer to."""
_IN_PLACE = frozenset({"properties", "allOf", "anyOf", "oneOf", "$ref"})
_CONDITIONS = frozenset({"not", "if", "contains"})  # closed, they would say something else

PARAMETERS = ("parameters", "input_schema", "inputSchema")
"""What OpenAI, Anthropic and the Model Context Protocol call the schema of a tool's arguments."""


@dataclass(frozen=True)
class ObjectSchema:
    """What somebody wants an object to look like.

    Attributes:
        schema: JSON schema, as it was given.
        name: What the form is called; None if nothing says.
        description: What it is for; None if nothing says.
        strict: Whether objects have no other properties than the schema names; None if nothing says.
    """

    schema: dict[str, Any]
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


def object_schema_of(form: Any) -> ObjectSchema:
    """Return what is known of a form.

    Args:
        form: A JSON schema, alone or inside of OpenAI's `{"name": ..., "schema": ...}`, an OpenAI function or tool or
            a tool of Anthropic's or the Model Context Protocol's; a pydantic class of version 2 or 1; a TypedDict; or
            a dataclass.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(form, dict):
        return _of_dictionary(form)
    if not is_schema_class(form):
        given = get_origin(form) or (form if isinstance(form, type) else type(form)).__name__
        msg = f"a JSON schema, a pydantic class or a TypedDict is needed, not {given}; a dataclass will do, too"
        raise InvalidRequestError(msg)
    schema = schema_of_class(form)
    return ObjectSchema(schema, schema.get("title"), schema.get("description"))


def is_schema_class(form: Any) -> bool:
    """Whether this is a pydantic class of version 2 or 1, a dataclass or a TypedDict."""
    return is_typeddict(form) or is_instance_class(form)


def is_instance_class(form: Any) -> bool:
    """Whether answers of this form are made instances of it: a pydantic class of version 2 or 1, or a dataclass."""
    if not isinstance(form, type):
        return False
    return issubclass(form, BaseModel) or _is_pydantic_v1(form) or dataclasses.is_dataclass(form)


def instance_of(kind: Any, value: Any) -> Any:
    """Return an instance of a pydantic class of version 2 or 1, or of a dataclass.

    Pydantic reads it as JSON: where a class is strict, a date may be a text in JSON, but not in Python.

    Args:
        kind: The class.
        value: What JSON has for it.

    Raises:
        ValueError: It does not fit; pydantic's own error says where.
    """
    if not issubclass(kind, BaseModel) and _is_pydantic_v1(kind):
        return kind.parse_obj(value)
    return TypeAdapter(kind).validate_json(json.dumps(value))


def schema_of_class(form: Any) -> dict[str, Any]:
    """Return the JSON schema of a pydantic class of version 2 or 1, a dataclass or a TypedDict.

    Unlike LangChain's own conversion it keeps definitions, so that a class may contain itself, and says of maps what
    their keys may be. What pydantic sees to itself is not in it: it takes the duplicates out of a set.

    Raises:
        InvalidRequestError: It has none.
    """
    # keys of a TypedDict's values are the caller's to convert, and so are the duplicates of a set
    generator = ExactJsonSchema if is_typeddict(form) else InputJsonSchema
    try:
        described = described_typed_dict(form) if is_typeddict(form) else form
        if not issubclass(described, BaseModel) and _is_pydantic_v1(described):
            schema = described.schema()
            for _, part in subschemas(schema):
                part.pop("uniqueItems", None)  # of a set; of a list, the class itself refuses duplicates
        else:
            schema = TypeAdapter(described).json_schema(schema_generator=generator)
    except (PydanticUserError, ValueError, AttributeError, NameError, TypeError) as error:
        msg = f"no JSON schema can be made of {form.__name__}: {error}"
        raise InvalidRequestError(msg) from error
    reference = schema.get("$ref")
    if reference is None:
        return dict(schema)
    *_, definitions, name = path_of(reference)  # of a class that contains itself
    return {**schema[definitions][name], definitions: schema[definitions]}


def contains_itself(schema: Mapping[str, Any]) -> bool:
    """Whether a value that fits a JSON schema may contain another one that fits the same definition."""
    references = [
        (path, path_of(part["$ref"])) for path, part in subschemas(schema) if str(part.get("$ref")).startswith("#")
    ]

    def within(target: Path) -> set[Path]:
        return {inner for path, inner in references if path[: len(target)] == target}

    def leads_back(target: Path) -> bool:
        reached: set[Path] = set()
        coming = within(target)
        while coming:
            reached |= coming
            coming = set().union(*map(within, coming)) - reached
        return target in reached

    return any(leads_back(target) for _, target in references)


def json_schema_of(form: Any) -> dict[str, Any]:
    """Return the JSON schema of a form; see `object_schema_of`."""
    return object_schema_of(form).schema


def closed_schema_of(form: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Return the schema of a form for objects that have no other properties than it names; see `closed`.

    Args:
        form: See `object_schema_of`; or what that returned. What it says it is for becomes the schema's description.
        strict: False leaves such objects open where the form does not say.
    """
    found = form if isinstance(form, ObjectSchema) else object_schema_of(form)
    said = {} if found.description is None else {"description": found.description}
    schema = {**said, **found.schema}
    return schema if (strict if found.strict is None else found.strict) is False else closed(schema)


def _of_dictionary(form: dict[str, Any]) -> ObjectSchema:
    for wrapper in ("function", "json_schema"):
        if form.get("type") == wrapper and isinstance(form.get(wrapper), dict):
            return _of_dictionary(form[wrapper])
    for key in ("schema", *PARAMETERS):
        if "name" in form and isinstance(form.get(key), dict):
            inner = _of_dictionary(form[key])
            strict = form.get("strict", inner.strict)
            return ObjectSchema(inner.schema, form["name"], form.get("description", inner.description), strict)
    if form and _KEYWORDS.isdisjoint(form):
        msg = (
            "a dictionary has to be a JSON schema, alone or as the schema of a function or tool in OpenAI's form; none "
            f"of the keys {', '.join(map(repr, form))} is a keyword of one"
        )
        raise InvalidRequestError(msg)
    return ObjectSchema(form, form.get("title"), form.get("description"))


def _is_pydantic_v1(form: Any) -> bool:
    # by its interface, since pydantic.v1 warns on Python 3.14 when it is imported
    return isinstance(form, type) and hasattr(form, "__fields__") and hasattr(form, "parse_obj")


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have no other properties than it names, where it does not say whether they may.

    Where a schema is put together of several that each name properties of the same object (a base class in `allOf`, for
    instance), none of them can be closed, since it would forbid the others' properties. All that such a schema
    consists of stays as it is.

    Args:
        schema: JSON schema.
    """
    result: dict[str, Any] = _copied(schema)
    parts = dict(subschemas(result))
    left_open = _left_open(parts)
    for path, part in parts.items():
        is_closed = not any(_consists_of(each, path) for each in left_open)
        named = part.get("properties")
        if not is_closed or not isinstance(named, dict) or "patternProperties" in part:
            continue
        if all(key in named for key in _members_of(part, "required")):  # else it has more than it names
            part.setdefault("additionalProperties", False)
    return result


def without_titles(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without the titles that pydantic gives everything."""
    result: dict[str, Any] = _copied(schema)
    for _, part in subschemas(result):
        part.pop("title", None)
    return result


def _copied(value: Any) -> Any:
    # unlike copy.deepcopy, also where one dictionary is in two places, of which only one may be closed
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _left_open(parts: Mapping[Path, dict[str, Any]]) -> set[Path]:
    """Return where the schemas are that are put together of several, and those that they refer to."""
    left_open: set[Path] = set()
    coming = [path for path, part in parts.items() if _is_composed(part)]
    coming += [(*path, key) for path, part in parts.items() for key in _CONDITIONS & part.keys()]
    while coming:
        path = coming.pop()
        if path not in left_open:
            left_open.add(path)
            references = [part.get("$ref") for inner, part in parts.items() if _consists_of(path, inner)]
            coming += [path_of(each) for each in references if isinstance(each, str) and each.startswith("#")]
    return left_open


def _is_composed(schema: Mapping[str, Any]) -> bool:
    """Whether more than one part of a schema may name properties of the same object."""
    members = [("properties" in schema), ("$ref" in schema)]
    members += [True for _ in _members_of(schema, "allOf")]
    for key in ("anyOf", "oneOf"):
        each_of = _members_of(schema, key)
        members.append(any(isinstance(each, dict) and not _IN_PLACE.isdisjoint(each) for each in each_of))
    more = [
        schema.get("then"),
        schema.get("else"),
        *_members_of(schema, "dependentSchemas"),
        *_members_of(schema, "dependencies"),
    ]
    members += [True for each in more if isinstance(each, dict) and not _IN_PLACE.isdisjoint(each)]
    return sum(members) > 1


def _members_of(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the schemas that a keyword has in a list or by names; none where it has something else."""
    value = schema.get(keyword)
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _consists_of(path: Path, inner: Path) -> bool:
    """Whether a schema is a part of another; what stands among its definitions only is none."""
    rest = inner[len(path) :]
    return inner[: len(path)] == path and not (rest and rest[0] in DEFINITIONS)
