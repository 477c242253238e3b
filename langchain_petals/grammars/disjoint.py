"""Finds out whether schemas are disjoint: with disjoint branches, `oneOf` means the same as `anyOf`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from langchain_petals.grammars.check import SchemaCheck
from langchain_petals.schemas import Path, listed_values, resolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DEEPEST = 8
"""Maximum depth of compared objects, since a class may contain itself."""

_CLOSED_OBJECT_KEYWORDS = frozenset({"patternProperties", "allOf", "anyOf", "oneOf", "$ref"})
_PLAIN = frozenset({"type", "const", "enum", "minLength", "maxLength", "minimum", "maximum", "pattern"})


def are_disjoint(branches: Any, parts: Mapping[Path, dict[str, Any]]) -> bool:
    """Whether it is certain that no value fits two of the branches; `parts` are all schemas of the document."""
    return isinstance(branches, list) and all(
        _differ(one, other, parts) for one, other in itertools.combinations(branches, 2)
    )


def _differ(one: Any, other: Any, parts: Mapping[Path, dict[str, Any]], depth: int = 0) -> bool:
    if one is False or other is False:
        return True
    one, other = resolved(one, parts), resolved(other, parts)
    if not isinstance(one, dict) or not isinstance(other, dict) or depth > _DEEPEST:
        return False
    for this, that in ((one, other), (other, one)):
        branches = this.get("anyOf") or this.get("oneOf")
        if isinstance(branches, list):
            return all(_differ(each, that, parts, depth + 1) for each in branches)
    types = _types(one), _types(other)
    if None not in types and not types[0] & types[1]:  # type: ignore[operator]
        return True
    if _never_meet(listed_values(one), other) or _never_meet(listed_values(other), one):
        return True
    return types == ({"object"}, {"object"}) and _differ_in_a_property(one, other, parts, depth)


def _types(schema: Mapping[str, Any]) -> set[str] | None:
    """Return the types of values; None if any type is allowed."""
    types = schema.get("type")
    if types is None:
        return None
    found = {types} if isinstance(types, str) else set(types)
    return found | {"integer"} if "number" in found else found


def _never_meet(values: Sequence[Any] | None, schema: Mapping[str, Any]) -> bool:
    """Whether no value of an enumeration fits the simple keywords of a schema."""
    if values is None:
        return False
    plain = SchemaCheck({key: value for key, value in schema.items() if key in _PLAIN})
    return all(plain.problem(value) is not None for value in values)


def _differ_in_a_property(
    one: Mapping[str, Any], other: Mapping[str, Any], parts: Mapping[Path, dict[str, Any]], depth: int
) -> bool:
    for this, that in ((one, other), (other, one)):
        named = that.get("properties") or {}
        is_closed = that.get("additionalProperties") is False and _CLOSED_OBJECT_KEYWORDS.isdisjoint(that)
        for key in this.get("required") or ():
            if key not in named and is_closed:
                return True
            mine = (this.get("properties") or {}).get(key, True)
            if key in (that.get("required") or ()) and _differ(mine, named.get(key, True), parts, depth + 1):
                return True
    return False
