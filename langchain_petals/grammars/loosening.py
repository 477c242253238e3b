"""Removes keywords from JSON schemas that grammars cannot enforce; answers are checked against those afterwards.

Each removal only makes the schema more permissive, so the grammar still allows every valid answer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.grammars.disjoint import are_disjoint
from langchain_petals.grammars.exact import is_supported, relax_one_of, schema_error
from langchain_petals.grammars.map_keys import rewrite_property_names
from langchain_petals.schemas import DEFINITIONS, Path, subschemas, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Parts = dict[Path, dict[str, Any]]

_UNKNOWN: dict[str, tuple[str, ...]] = {
    "not": ("false",),
    "if": (),
    "contains": (),
    "dependentRequired": ("{}",),
    "dependentSchemas": ("{}",),
    "dependencies": ("{}",),
    "unevaluatedProperties": ("true", "{}"),
    "unevaluatedItems": ("true", "{}"),
    "uniqueItems": ("false",),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
"""Keywords that llguidance does not know, each with the JSON texts of the values that restrict nothing."""

_COMPANIONS = {"if": ("then", "else"), "contains": ("minContains", "maxContains")}

_NOT_EXPRESSIBLE = "no grammar can express it"
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties"})
_COMPOSING = ("allOf", "anyOf", "oneOf")
_NOT_RESTRICTING = frozenset({*DEFINITIONS, "$id", "$schema", "title", "description", "default", "examples"})


@dataclass(frozen=True)
class LeftOut:
    """A keyword that the grammar does not enforce, the path of the schema that has it, and why it was left out."""

    keyword: str
    path: Path
    reason: str

    def __str__(self) -> str:
        """Return the keyword and the JSON pointer (RFC 6901) of its schema, as in `'not' at #/properties/a~1b`."""
        tokens = (token.replace("~", "~0").replace("/", "~1") for token in self.path)
        return f"{self.keyword!r} at {'/'.join(['#', *tokens])}"


def remove_unsupported(schema: dict[str, Any]) -> list[LeftOut]:
    """Rewrite a schema in place for llguidance; return the keywords that no grammar can enforce, or only in part."""
    left_out: list[LeftOut] = []
    parts = dict(subschemas(schema))
    removed: list[Path] = []
    for path, part in parts.items():
        if any(path[: len(each)] == each for each in removed):
            continue
        _drop_without_effect(part)
        for keyword in _UNKNOWN:
            if keyword in part:
                left_out.append(LeftOut(keyword, path, schema_error({keyword: part[keyword]}) or _NOT_EXPRESSIBLE))
                for each in (keyword, *_COMPANIONS.get(keyword, ())):
                    part.pop(each, None)
                    removed.append((*path, each))
        left_out += [LeftOut(keyword, path, reason) for keyword, reason in _rewritten(part, parts)]
        removed.append((*path, "propertyNames"))
    # after all parts are rewritten, since branches are compared by their keywords
    for path, part in parts.items():
        if part.get("oneOf") and not any(path[: len(each)] == each for each in removed):
            if not are_disjoint(part["oneOf"], parts):
                left_out.append(LeftOut("oneOf", path, "its branches may overlap"))
            relax_one_of(part)
    return left_out


def _drop_without_effect(part: dict[str, Any]) -> None:
    idle = [keyword for keyword, texts in _UNKNOWN.items() if json.dumps(part.get(keyword)) in texts]
    if "contains" not in part or (part.get("minContains") == 0 and "maxContains" not in part):
        idle += ["contains", *_COMPANIONS["contains"]]
    if "if" not in part or part.keys().isdisjoint(_COMPANIONS["if"]):
        idle += ["if", *_COMPANIONS["if"]]
    for keyword in idle:
        part.pop(keyword, None)


def _rewritten(part: dict[str, Any], parts: Parts) -> Iterator[tuple[str, str]]:
    """Rewrite keywords; yield those that are not enforced in full, and why."""
    if "propertyNames" in part and not rewrite_property_names(part, parts):
        yield "propertyNames", _NOT_EXPRESSIBLE
    if isinstance(part.get("pattern"), str) and not is_supported("pattern", part["pattern"]):
        yield "pattern", schema_error({"type": "string", "pattern": part.pop("pattern")}) or ""
    if isinstance(part.get("patternProperties"), dict) and (reason := _merge_patterns(part)):
        yield "patternProperties", reason
    least, required = part.get("minProperties"), part.get("required")
    certain = 1 + len(required if isinstance(required, list) else ())
    is_closed = part.get("additionalProperties") is False and "patternProperties" not in part
    if isinstance(least, int) and not is_closed and least > certain:
        part["minProperties"] = certain
        reason = f"minProperties={least} cannot be guaranteed, since keys that are not in properties may come twice"
        yield "minProperties", f"{reason}; list all keys in properties and required"


def _merge_patterns(part: dict[str, Any]) -> str | None:
    """Merge patterns that llguidance cannot distinguish into `additionalProperties`; return why, or None."""
    patterns: dict[str, Any] = part["patternProperties"]
    lost = [pattern for pattern in patterns if not is_supported("pattern", pattern)]
    reason = schema_error({"patternProperties": {pattern: {"type": "null"} for pattern in patterns}})
    if reason is None:
        return None
    values = [patterns[pattern] for pattern in lost or patterns]
    part["patternProperties"] = {pattern: value for pattern, value in patterns.items() if lost and pattern not in lost}
    others = part.get("additionalProperties", True)
    if others is not True:
        part["additionalProperties"] = {"anyOf": values if others is False else [*values, others]}
    return reason


def remove_refused(schema: dict[str, Any]) -> list[LeftOut]:
    """Remove as few other keywords as possible until llguidance accepts a schema; return the removed ones."""
    left_out: list[LeftOut] = []
    parts = dict(subschemas(schema))
    for path, part in parts.items():
        left_out += [LeftOut(keyword, path, reason) for keyword, reason in _refused_alone(part, parts)]
    while (reason := schema_error(schema)) is not None:
        path = _innermost_refused((), parts, schema)
        removed = _removed_restrictions(parts[path]) or _removed_restrictions(schema)
        if not removed:
            break
        left_out += [LeftOut(keyword, path, reason) for keyword in removed]
    return left_out


def _innermost_refused(path: Path, parts: Parts, schema: dict[str, Any]) -> Path:
    """Return the path of a schema that llguidance refuses although it accepts the schemas inside and the references."""
    seen = {path}
    while True:
        inner = (each for each in _next(path, parts) if each not in seen)
        refused = next((each for each in inner if schema_error(_in_context(parts[each], schema)) is not None), None)
        if refused is None:
            return path
        path = refused
        seen.add(path)


def _next(path: Path, parts: Parts) -> Iterator[Path]:
    """Yield the paths of the schemas directly inside of another one, and of the one that it refers to."""
    target = target_of(parts[path], parts)
    if target is not None:
        yield target
    for other in parts:
        rest = other[len(path) :]
        between = (other[:length] for length in range(len(path) + 1, len(other)))
        is_inside = bool(rest) and other[: len(path)] == path and rest[0] not in DEFINITIONS
        if is_inside and not any(each in parts for each in between):
            yield other


def _refused_alone(part: dict[str, Any], parts: Parts) -> Iterator[tuple[str, str]]:
    """Remove keywords that llguidance refuses even if all schemas inside of them are `true`; yield them, and why."""
    while (reason := schema_error(_shallow(part, parts))) is not None:
        restricting = sorted(part.keys() - _NOT_RESTRICTING, key=lambda keyword: (keyword == "type", keyword))
        if not restricting:
            return
        culprits = (
            keyword
            for keyword in restricting
            if schema_error(_shallow({key: value for key, value in part.items() if key != keyword}, parts)) is None
        )
        keyword = next(culprits, restricting[0])
        del part[keyword]
        yield keyword, reason


def _shallow(part: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """Return a schema with `true` in place of all schemas inside of it."""
    shallow: dict[str, Any] = {}
    for keyword, value in part.items():
        if keyword in _NOT_RESTRICTING or (keyword in _COMPOSING and value):
            continue
        if keyword == "$ref" and target_of(part, parts) is not None:
            continue
        if keyword in _SCHEMAS_BY_NAME and isinstance(value, dict):
            shallow[keyword] = dict.fromkeys(value, True)
        elif keyword in ("items", "additionalProperties") and isinstance(value, dict):
            shallow[keyword] = True
        elif keyword == "prefixItems" and isinstance(value, list):
            shallow[keyword] = [True] * len(value)
        else:
            shallow[keyword] = value
    return shallow


def _in_context(part: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a part of a schema as a schema of its own, with the targets of its references."""
    moved: dict[str, Any] = json.loads(json.dumps({**part, "$defs": {"whole": schema}}))
    for each in (moved, moved["$defs"]["whole"]):
        each.pop("$id", None)
    for _, each in subschemas(moved):
        reference = each.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            each["$ref"] = "#/$defs/whole" + reference[1:]
    return moved


def _removed_restrictions(part: dict[str, Any]) -> list[str]:
    """Remove all restricting keywords but the type; return them."""
    removed = [keyword for keyword in part if keyword != "type" and keyword not in _NOT_RESTRICTING]
    for keyword in removed:
        del part[keyword]
    return removed
