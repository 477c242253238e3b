"""Whether a value fits a JSON schema, for what a grammar cannot see to.

Schemas come from strangers: nothing is fetched that they refer to, and no pattern may take for ever.
"""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any

import regex
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker, ValidationError, validators
from jsonschema.exceptions import UnknownType, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from langchain_petals.engine.json_schema import path_of, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from langchain_petals.engine.json_schema import Path

_PATTERN_SECONDS = 2.0
"""How long a pattern may look through one text: some take exponential time."""

_LONGEST = 300  # characters of a reason; jsonschema's show the whole value

_FORMATS = FormatChecker(formats=("email", "ipv4", "ipv6", "uuid"))
"""Formats that the grammar enforces by itself, so that `oneOf` can tell them apart; the others are patterns by then."""


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    try:
        return regex.compile(pattern)
    except (regex.error, OverflowError):
        return None


def _is_found(pattern: str, text: str) -> bool:
    compiled = _compiled(pattern)
    if compiled is None:  # JavaScript's patterns are not quite Python's; `checkable` has told of it
        return True
    try:
        return compiled.search(text, timeout=_PATTERN_SECONDS) is not None
    except TimeoutError:
        return False


def _pattern(validator: Any, pattern: str, instance: Any, _: Mapping[str, Any]) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _is_found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, schema in patterns.items():
            for key, value in instance.items():
                if _is_found(pattern, key):
                    yield from validator.descend(value, schema, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, others: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in named or any(_is_found(pattern, key) for pattern in patterns):
            continue
        if others is False:
            yield ValidationError(f"there is no property {key!r}")
        else:
            yield from validator.descend(value, others, path=key)


_OLD = {key: Draft7Validator.VALIDATORS[key] for key in ("dependencies", "additionalItems")}
_NEW_ITEMS = Draft202012Validator.VALIDATORS["items"]
_OLD_ITEMS = Draft7Validator.VALIDATORS["items"]


def _items(validator: Any, items: Any, instance: Any, schema: Mapping[str, Any]) -> Any:
    """Take a list too, which older drafts have where newer ones have `prefixItems`."""
    return (_OLD_ITEMS if isinstance(items, list) else _NEW_ITEMS)(validator, items, instance, schema)


def _validator_of(schema: Mapping[str, Any]) -> Any:
    """Return jsonschema's validator for a schema's draft; without a draft, for what any of them may say."""
    draft = validators.validator_for(schema, default=Draft202012Validator)
    extra = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    if draft is Draft202012Validator:
        extra |= {**_OLD, "items": _items}
    return validators.extend(draft, extra)


class SchemaCheck:
    """Checks values after they were generated.

    Args:
        schema: JSON schema, a valid one; see `checkable`.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _validator_of(schema)(schema, registry=Registry(), format_checker=_FORMATS)

    def problem(self, value: Any) -> str | None:
        """Return why a value does not fit; None if it does.

        Example:
            >>> SchemaCheck({"properties": {"x": {"not": {"const": 1}}}}).problem({"x": 1})
            "keyword 'not' at $.x: 1 should not be valid under {'const': 1}"
        """
        try:
            error = best_match(self._validator.iter_errors(value))
        except (Unresolvable, UnknownType, RecursionError) as failure:
            return f"it cannot be compared with its schema: {_shortened(str(failure) or type(failure).__name__)}"
        if error is None:
            return None
        return f"keyword {error.validator!r} at {error.json_path}: {_shortened(error.message)}"


def checkable(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[tuple[Path, str], str]]:
    """Return a schema without what means nothing, so that values can be compared with it.

    Args:
        schema: JSON schema, perhaps not a valid one.

    Returns:
        A copy, and why keywords are not in it, by the place of the schema and the keyword.
    """
    copied: dict[str, Any] = copy.deepcopy(dict(schema))
    parts = dict(subschemas(copied))
    ignored: dict[tuple[Path, str], str] = {}
    draft = validators.validator_for(schema, default=Draft202012Validator)
    for error in draft(draft.META_SCHEMA).iter_errors(schema):
        place = _keyword_at(tuple(map(str, error.absolute_path)), parts)
        if place is not None and not (place[1] == "items" and isinstance(parts[place[0]].get("items"), list)):
            ignored[place] = f"it is no valid JSON schema: {_shortened(error.message)}"
    for path, part in parts.items():
        reference = part.get("$ref")
        if isinstance(reference, str) and not _leads_somewhere(reference, parts):
            ignored[path, "$ref"] = f"{reference!r} is not in the schema"
        if isinstance(part.get("pattern"), str) and _compiled(part["pattern"]) is None:
            ignored[path, "pattern"] = "it is no regular expression that Python knows"
    for path, keyword in ignored:
        parts[path].pop(keyword, None)
    return copied, ignored


def _keyword_at(path: Path, parts: Mapping[Path, Any]) -> tuple[Path, str] | None:
    """Return the innermost schema that a place is in, and the keyword of it."""
    lengths = (length for length in reversed(range(len(path))) if path[:length] in parts)
    length = next(lengths, None)
    return None if length is None else (path[:length], path[length])


def _leads_somewhere(reference: str, parts: Mapping[Path, Any]) -> bool:
    if reference.startswith(("#/", "#")) and (reference == "#" or reference[1] == "/"):
        return path_of(reference) in parts
    named = {part.get(key) for part in parts.values() for key in ("$id", "$anchor") if isinstance(part.get(key), str)}
    return reference.partition("#")[0] in named or reference.removeprefix("#") in named


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
