"""The JSON schema of whatever describes a form: a pydantic class of either version, a TypedDict, a schema itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin
from urllib.parse import unquote

from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel
from typing_extensions import is_typeddict

from langchain_petals.engine.grammars import ANNOTATIONS
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    _Path = tuple[str, ...]

_KEYWORDS = frozenset(
    {"$ref", "type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "if"}
    | {"properties", "patternProperties", "additionalProperties", "propertyNames", "required"}
    | {"minProperties", "maxProperties", "items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"}
    | {"pattern", "format", "minLength", "maxLength"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)
"""Keywords of JSON schema that say something about a value."""

_DEFINITIONS = ("$defs", "definitions")
_NAMED = (*_DEFINITIONS, "properties", "patternProperties")  # the keys of their values are names, not keywords
_IN_PLACE = frozenset({"properties", "allOf", "anyOf", "oneOf", "$ref"})


@dataclass(frozen=True)
class Form:
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


def form_of(form: Any) -> Form:
    """Return what is known of a form.

    Args:
        form: A JSON schema, alone or inside of OpenAI's `{"name": ..., "schema": ...}`, an OpenAI function or tool or
            an Anthropic tool; a pydantic class of version 2 or 1; or a TypedDict.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(form, dict):
        return _of_dictionary(form)
    if isinstance(form, type) and issubclass(form, BaseModel):
        schema = form.model_json_schema()
    elif is_typeddict(form) or _is_pydantic_v1(form):
        schema = convert_to_json_schema(form)
    else:
        msg = f"a JSON schema, a pydantic class or a TypedDict is needed, not {get_origin(form) or type(form).__name__}"
        raise InvalidRequestError(msg)
    return Form(schema, schema.get("title"), schema.get("description"))


def json_schema_of(form: Any) -> dict[str, Any]:
    """Return the JSON schema of a form; see `form_of`."""
    return form_of(form).schema


def closed_schema_of(form: Any) -> dict[str, Any]:
    """Return the schema of a form for objects that have no other properties than it names; see `closed`."""
    found = form_of(form)
    return found.schema if found.strict is False else closed(found.schema)


def _of_dictionary(form: dict[str, Any]) -> Form:
    for wrapper in ("function", "json_schema"):
        if form.get("type") == wrapper and isinstance(form.get(wrapper), dict):
            return _of_dictionary(form[wrapper])
    for key in ("schema", "parameters", "input_schema"):
        if "name" in form and isinstance(form.get(key), dict):
            inner = _of_dictionary(form[key])
            strict = form.get("strict", inner.strict)
            return Form(inner.schema, form["name"], form.get("description", inner.description), strict)
    if form and _KEYWORDS.isdisjoint(form):
        msg = (
            "a dictionary has to be a JSON schema, alone or as the schema of a function or tool in OpenAI's form; none "
            f"of the keys {', '.join(map(repr, form))} is a keyword of one"
        )
        raise InvalidRequestError(msg)
    return Form(form, form.get("title"), form.get("description"))


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
    parts = dict(_parts(result, ()))
    left_open = _left_open(parts)
    for path, part in parts.items():
        is_closed = not any(_consists_of(each, path) for each in left_open)
        if is_closed and isinstance(part.get("properties"), dict) and "patternProperties" not in part:
            part.setdefault("additionalProperties", False)
    return result


def _copied(value: Any) -> Any:
    # unlike copy.deepcopy, also where one dictionary is in two places, of which only one may be closed
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, list) else value


def _parts(value: Any, path: _Path) -> Iterator[tuple[_Path, dict[str, Any]]]:
    """Yield each schema in a schema, itself included, and where it is."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from _parts(each, (*path, str(index)))
    elif isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            if key in _NAMED and isinstance(inner, dict):
                for name, each in inner.items():
                    yield from _parts(each, (*path, key, name))
            elif key not in ANNOTATIONS:
                yield from _parts(inner, (*path, key))


def _left_open(parts: Mapping[_Path, dict[str, Any]]) -> set[_Path]:
    """Return where the schemas are that are put together of several, and those that they refer to."""
    left_open: set[_Path] = set()
    coming = [path for path, part in parts.items() if _is_composed(part)]
    while coming:
        path = coming.pop()
        if path not in left_open:
            left_open.add(path)
            references = [part.get("$ref") for inner, part in parts.items() if _consists_of(path, inner)]
            coming += [_path_of(each) for each in references if isinstance(each, str) and each.startswith("#")]
    return left_open


def _is_composed(schema: Mapping[str, Any]) -> bool:
    """Whether more than one part of a schema may name properties of the same object."""
    members = [("properties" in schema), ("$ref" in schema)]
    members += [True for _ in schema.get("allOf") or ()]
    for key in ("anyOf", "oneOf"):
        each_of = schema.get(key) or ()
        members.append(any(isinstance(each, dict) and not _IN_PLACE.isdisjoint(each) for each in each_of))
    return sum(members) > 1


def _consists_of(path: _Path, inner: _Path) -> bool:
    """Whether a schema is a part of another; what stands among its definitions only is none."""
    rest = inner[len(path) :]
    return inner[: len(path)] == path and not (rest and rest[0] in _DEFINITIONS)


def _path_of(reference: str) -> _Path:
    """Return where a JSON pointer (RFC 6901) in a URI's fragment points to."""
    tokens = unquote(reference[1:]).split("/")[1:]
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)
