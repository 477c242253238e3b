"""What of a JSON schema a grammar cannot keep to: it is left out of the grammar, and checked when the answer is there.

Whatever is left out only narrows what a schema allows, so that the grammar still lets every right answer through.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.grammars.disjoint import are_disjoint
from langchain_petals.grammars.exact import compile_error, is_supported_pattern, relax_one_of
from langchain_petals.grammars.map_keys import rewrite_property_names
from langchain_petals.schemas import path_of, pointer_of, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.schemas import Path

    Parts = dict[Path, dict[str, Any]]

_COMPANIONS: dict[str, tuple[str, ...]] = {
    "not": (),
    "if": ("then", "else"),
    "contains": ("minContains", "maxContains"),
    "dependentRequired": (),
    "dependentSchemas": (),
    "dependencies": (),
    "unevaluatedProperties": (),
    "unevaluatedItems": (),
    "uniqueItems": (),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
"""Keywords that llguidance does not know, and those that mean nothing without them."""

_SAY_NOTHING: tuple[tuple[str, Any], ...] = (
    ("not", False),
    ("dependentRequired", {}),
    ("dependentSchemas", {}),
    ("dependencies", {}),
    ("unevaluatedProperties", True),
    ("unevaluatedProperties", {}),
    ("unevaluatedItems", True),
    ("unevaluatedItems", {}),
    ("uniqueItems", False),
)

_NOT_GUARANTEED = "it cannot be guaranteed while decoding"
_SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties"})
_COMPOSING = ("allOf", "anyOf", "oneOf")
_NOT_NARROWING = frozenset({"$defs", "definitions", "$id", "$schema", "title", "description", "default", "examples"})


@dataclass(frozen=True)
class LeftOut:
    """A keyword that the grammar does not keep to.

    Attributes:
        keyword: Its name.
        path: Of the schema that it is in.
        reason: Why it was left out.
    """

    keyword: str
    path: Path
    reason: str

    def __str__(self) -> str:
        """Return the keyword and its place, as in `'not' at #/properties/x`."""
        return f"{self.keyword!r} at {pointer_of(self.path)}"


def remove_unsupported(schema: dict[str, Any]) -> list[LeftOut]:
    """Take out of a schema what no grammar can express, and say the rest in other words where llguidance needs those.

    Args:
        schema: JSON schema, changed in place.

    Returns:
        What was lost.
    """
    left_out: list[LeftOut] = []
    parts = dict(subschemas(schema))
    gone: list[Path] = []
    for path, part in parts.items():
        if any(path[: len(each)] == each for each in gone):
            continue
        _drop_what_says_nothing(part)
        for keyword, companions in _COMPANIONS.items():
            if keyword in part:
                left_out.append(LeftOut(keyword, path, compile_error({keyword: part[keyword]}) or _NOT_GUARANTEED))
                for each in (keyword, *companions):
                    part.pop(each, None)
                    gone.append((*path, each))
        left_out += [LeftOut(keyword, path, reason) for keyword, reason in _reworded(part, parts)]
        gone.append((*path, "propertyNames"))
    # not before all parts are final: whether two differ is seen by what they have in them
    for path, part in parts.items():
        if part.get("oneOf") and not any(path[: len(each)] == each for each in gone):
            if not are_disjoint(part["oneOf"], parts):
                left_out.append(LeftOut("oneOf", path, "its branches may overlap"))
            relax_one_of(part)
    return left_out


def _drop_what_says_nothing(part: dict[str, Any]) -> None:
    for keyword, value in _SAY_NOTHING:
        if keyword in part and part[keyword] == value and isinstance(part[keyword], bool) == isinstance(value, bool):
            del part[keyword]
    if "contains" not in part or (part.get("minContains") == 0 and "maxContains" not in part):
        for keyword in ("contains", "minContains", "maxContains"):
            part.pop(keyword, None)
    if "if" not in part or ("then" not in part and "else" not in part):
        for keyword in ("if", "then", "else"):
            part.pop(keyword, None)


def _reworded(part: dict[str, Any], parts: Parts) -> Iterator[tuple[str, str]]:
    """Say keywords in other words; yield those of which something was lost, and why."""
    if "propertyNames" in part and not rewrite_property_names(part, parts):
        yield "propertyNames", _NOT_GUARANTEED
    if isinstance(part.get("pattern"), str) and not is_supported_pattern(part["pattern"]):
        yield "pattern", compile_error({"type": "string", "pattern": part.pop("pattern")}) or ""
    if isinstance(part.get("patternProperties"), dict) and (reason := _merge_patterns(part)):
        yield "patternProperties", reason
    least, required = part.get("minProperties"), part.get("required")
    surely = 1 + len(required if isinstance(required, list) else ())
    is_closed = part.get("additionalProperties") is False and "patternProperties" not in part
    if isinstance(least, int) and not is_closed and least > surely:
        part["minProperties"] = surely
        reason = f"minProperties={least} cannot be guaranteed, since a key that no property names may come twice"
        yield "minProperties", f"{reason}; list the keys in properties and required"


def _merge_patterns(part: dict[str, Any]) -> str | None:
    """Let other properties be what those of patterns may be that cannot be told apart; return why, if there are any."""
    patterns: dict[str, Any] = part["patternProperties"]
    lost = [pattern for pattern in patterns if not is_supported_pattern(pattern)]
    reason = compile_error({"patternProperties": {pattern: {"type": "null"} for pattern in patterns}})
    if reason is None:
        return None
    values = [patterns[pattern] for pattern in lost or patterns]
    part["patternProperties"] = {pattern: value for pattern, value in patterns.items() if lost and pattern not in lost}
    others = part.get("additionalProperties", True)
    if others is not True:
        part["additionalProperties"] = {"anyOf": values if others is False else [*values, others]}
    return reason


def remove_refused(schema: dict[str, Any]) -> list[LeftOut]:
    """Take out of a schema whatever llguidance refuses for another reason, as little as possible.

    Args:
        schema: JSON schema, changed in place.

    Returns:
        What was lost.
    """
    left_out: list[LeftOut] = []
    parts = dict(subschemas(schema))
    for path, part in parts.items():
        left_out += [LeftOut(keyword, path, reason) for keyword, reason in _refused_alone(part, parts)]
    while (reason := compile_error(schema)) is not None:
        path = _innermost_refused((), parts, schema)
        gone = _emptied(parts[path], is_root=not path) or _emptied(schema, is_root=True)
        if not gone:
            break
        left_out += [LeftOut(keyword, path, reason) for keyword in gone]
    return left_out


def _innermost_refused(path: Path, parts: Parts, schema: dict[str, Any]) -> Path:
    """Return where a schema is that llguidance refuses, though it takes what is in it and what that refers to."""
    seen = {path}
    while True:
        inner = (each for each in _next(path, parts) if each not in seen)
        refused = next((each for each in inner if compile_error(_in_context(parts[each], schema)) is not None), None)
        if refused is None:
            return path
        path = refused
        seen.add(path)


def _next(path: Path, parts: Parts) -> Iterator[Path]:
    """Yield where the schemas are that are in another one, and the one that it refers to."""
    reference = parts[path].get("$ref")
    if isinstance(reference, str) and path_of(reference) in parts:
        yield path_of(reference)
    for other in parts:
        rest = other[len(path) :]
        between = (other[:length] for length in range(len(path) + 1, len(other)))
        is_inside = bool(rest) and other[: len(path)] == path and rest[0] not in ("$defs", "definitions")
        if is_inside and not any(each in parts for each in between):
            yield other


def _refused_alone(part: dict[str, Any], parts: Parts) -> Iterator[tuple[str, str]]:
    """Take out keywords that llguidance refuses whatever is inside of them; yield them, and why."""
    while (reason := compile_error(_shallow(part, parts))) is not None:
        narrowing = sorted(part.keys() - _NOT_NARROWING, key=lambda keyword: (keyword == "type", keyword))
        if not narrowing:
            return
        culprits = (
            keyword
            for keyword in narrowing
            if compile_error(_shallow({key: value for key, value in part.items() if key != keyword}, parts)) is None
        )
        keyword = next(culprits, narrowing[0])
        del part[keyword]
        yield keyword, reason


def _shallow(part: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """Return what a schema says by itself, with anything in place of those inside of it."""
    shallow: dict[str, Any] = {}
    for keyword, value in part.items():
        if keyword in _NOT_NARROWING or (keyword in _COMPOSING and value):
            continue
        if keyword == "$ref" and isinstance(value, str) and value.startswith("#") and path_of(value) in parts:
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
    """Return one part of a schema with all that it may refer to."""
    whole = {key: value for key, value in _moved(schema).items() if key != "$id"}
    return {**_moved({key: value for key, value in part.items() if key != "$id"}), "$defs": {"whole": whole}}


def _moved(value: Any) -> Any:
    """Return a schema for a document in which it is no longer the root."""
    if isinstance(value, list):
        return [_moved(each) for each in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(each) for key, each in value.items()}
    reference = moved.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        moved["$ref"] = "#/$defs/whole" + reference[1:]
    return moved


def _emptied(part: dict[str, Any], *, is_root: bool) -> list[str]:
    """Leave of a schema its type alone; return what is gone."""
    kept = {"type"} | (_NOT_NARROWING if is_root else set())
    gone = [keyword for keyword in part if keyword not in kept | _NOT_NARROWING]
    for keyword in gone:
        del part[keyword]
    return gone
