"""Closes JSON schemas: objects may then have only the properties that the schema names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_petals.schemas.json_schema import DEFINITIONS, Path, path_of, subschemas

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAY_NAME_PROPERTIES = frozenset({"properties", "allOf", "anyOf", "oneOf", "$ref"})
_CONDITIONS = frozenset({"not", "if", "contains"})  # with `additionalProperties` these would mean something else


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a schema with `additionalProperties: false` in all objects without this keyword.

    Several schemas may name properties of the same object: a base class in `allOf`, for instance. These schemas stay as
    they are: a closed one would forbid the properties of the others.
    """
    result: dict[str, Any] = copied(schema)
    parts = dict(subschemas(result))
    left_open = _left_open(parts)
    for path, part in parts.items():
        named = part.get("properties")
        if not isinstance(named, dict) or "patternProperties" in part or any(_is_part(at, path) for at in left_open):
            continue
        if all(key in named for key in _members_of(part, "required")):  # or it requires others
            part.setdefault("additionalProperties", False)
    return result


def copied(value: Any) -> Any:
    """Return a deep copy in which no dictionary occurs twice; `copy.deepcopy` would keep such dictionaries shared."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


def _left_open(parts: Mapping[Path, dict[str, Any]]) -> set[Path]:
    """Return the paths of schemas that cannot be closed: composed ones, conditions, and what these refer to."""
    left_open: set[Path] = set()
    pending = [path for path, part in parts.items() if _is_composed(part)]
    pending += [(*path, key) for path, part in parts.items() for key in _CONDITIONS & part.keys()]
    while pending:
        path = pending.pop()
        if path not in left_open:
            left_open.add(path)
            references = [part.get("$ref") for inner, part in parts.items() if _is_part(path, inner)]
            pending += [path_of(each) for each in references if isinstance(each, str) and each.startswith("#")]
    return left_open


def _is_composed(schema: Mapping[str, Any]) -> bool:
    """Whether more than one part of a schema may name properties of the same object."""
    count = ("properties" in schema) + ("$ref" in schema) + len(_members_of(schema, "allOf"))
    count += sum(any(map(_may_name_properties, _members_of(schema, key))) for key in ("anyOf", "oneOf"))
    dependent = [*_members_of(schema, "dependentSchemas"), *_members_of(schema, "dependencies")]
    return count + sum(map(_may_name_properties, [schema.get("then"), schema.get("else"), *dependent])) > 1


def _may_name_properties(schema: Any) -> bool:
    return isinstance(schema, dict) and not _MAY_NAME_PROPERTIES.isdisjoint(schema)


def _members_of(schema: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the members of a keyword's list, or the values of its dictionary; else nothing."""
    value = schema.get(keyword)
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _is_part(path: Path, inner: Path) -> bool:
    """Whether the schema at `inner` is a part of the one at `path`, and not only among its definitions."""
    rest = inner[len(path) :]
    return inner[: len(path)] == path and not (rest and rest[0] in DEFINITIONS)
