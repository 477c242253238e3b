"""Checks of values against JSON schemas after generation, for keywords that grammars cannot enforce.

Schemas may come from strangers: no reference is fetched, and every check has a bound. The keywords of all drafts apply,
whatever draft a schema names, because the warning that announces the check does not depend on the draft either.
"""

from __future__ import annotations

import copy
import functools
import time
from contextvars import ContextVar
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import regex
from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker, ValidationError, validators
from jsonschema.exceptions import UnknownType, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from langchain_petals.schemas import Path, path_of, subschemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PATTERN_SECONDS = 2.0
"""Time limit for all patterns in the check of one value: some take exponential time."""

_MOST_REFERENCES = 20_000
"""Limit of references followed for one value: with overlapping `oneOf` branches, they grow exponentially with depth."""

_LONGEST = 300  # characters of a reason; those of jsonschema contain the whole value

_FORMATS = FormatChecker(formats=("email", "ipv4", "ipv6", "uuid"))
"""Formats that grammars enforce, so that `oneOf` can distinguish them; all others were replaced with patterns."""


class _TooLongError(Exception):
    """A check took too long."""


@dataclass
class _Effort:
    """The cost of one check so far."""

    ends: float  # the monotonic time until which patterns may run
    references: int = 0


_effort: ContextVar[_Effort] = ContextVar("effort")
"""The cost of the current check; jsonschema calls functions of keywords without any argument for it."""


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    """Return a JavaScript pattern, compiled; None if that is not possible."""
    try:
        return regex.compile(_EMPTY_CLASS.sub(r"[\\s\\S]", _NAMED_REFERENCE.sub(r"(?P=\1)", pattern)))
    except (regex.error, OverflowError):
        return None


_NAMED_REFERENCE, _EMPTY_CLASS = regex.compile(r"\\k<(\w+)>"), regex.compile(r"\[\^\]")


def _is_found(pattern: str, text: str) -> bool:
    compiled = _compiled(pattern)
    if compiled is None:  # `checkable_schema` reported it
        return True
    left = _effort.get().ends - time.monotonic()
    try:
        return left > 0 and compiled.search(text, timeout=left) is not None
    except TimeoutError:
        return False


def _reference(validator: Any, reference: str, instance: Any, schema: Mapping[str, Any]) -> Any:
    effort = _effort.get()
    effort.references += 1
    if effort.references > _MOST_REFERENCES:
        msg = "comparing it takes too long"
        raise _TooLongError(msg)
    return Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema)


def _multiple_of(validator: Any, factor: Any, instance: Any, _: Mapping[str, Any]) -> Iterator[ValidationError]:
    """Compare decimal numbers: in binary, 19.99 is no multiple of 0.01."""
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield ValidationError(f"{instance!r} is not a multiple of {factor}")


def _pattern(validator: Any, pattern: str, instance: Any, _: Mapping[str, Any]) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _is_found(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: Any, _: Mapping[str, Any]
) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, schema in patterns.items():
            for key, value in instance.items():
                if _compiled(pattern) is not None and _is_found(pattern, key):
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
            yield ValidationError(f"the property {key!r} is not allowed")
        else:
            yield from validator.descend(value, others, path=key)


_Validator = validators.extend(
    Draft202012Validator,
    {
        "$ref": _reference,
        "additionalProperties": _additional_properties,
        "dependencies": Draft7Validator.VALIDATORS["dependencies"],
        "multipleOf": _multiple_of,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
    },
)


class SchemaCheck:
    """Checks values after they were generated against a valid schema; see `checkable_schema`."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _Validator(schema, registry=Registry(), format_checker=_FORMATS)

    def problem(self, value: Any) -> str | None:
        """Return why a value does not fit the schema, as in `keyword 'minimum' at $.x: ...`; None if it fits."""
        token = _effort.set(_Effort(time.monotonic() + _PATTERN_SECONDS))
        try:
            error = best_match(self._validator.iter_errors(value))
        except (Unresolvable, UnknownType, RecursionError, _TooLongError) as failure:
            return f"it cannot be checked: {_shortened(str(failure) or type(failure).__name__)}"
        finally:
            _effort.reset(token)
        if error is None:
            return None
        return f"keyword {error.validator!r} at {error.json_path}: {_shortened(error.message)}"


def checkable_schema(schema: Mapping[str, Any]) -> tuple[dict[str, Any], dict[tuple[Path, str], str]]:
    """Return a copy of a schema without invalid keywords; and by path and name, why each of these was removed."""
    copied = _modern(schema)
    parts = dict(subschemas(copied))
    ignored: dict[tuple[Path, str], str] = {}
    for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(copied):
        path = tuple(map(str, error.absolute_path))  # never empty, since no error is about a dictionary itself
        innermost = next(length for length in reversed(range(len(path))) if path[:length] in parts)
        place = path[:innermost], path[innermost]
        ignored[place] = f"it is no valid JSON schema: {_shortened(error.message)}"
    for path, keyword in ignored:
        parts[path].pop(keyword, None)
    for path, part in parts.items():
        reference = part.get("$ref")
        if isinstance(reference, str) and not _has_target(reference, path, parts):
            ignored[path, "$ref"] = f"{reference!r} is not in the schema"
        if isinstance(part.get("pattern"), str) and _compiled(part["pattern"]) is None:
            ignored[path, "pattern"] = "it is no regular expression that Python supports"
    for path, keyword in ignored:
        parts[path].pop(keyword, None)
    return copied, ignored


def _modern(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema in draft 2020-12, with `{"not": {}}` instead of `false`, since errors must name a keyword."""
    copied: dict[str, Any] = copy.deepcopy(dict(schema))
    for _, part in subschemas(copied):
        part.pop("$schema", None)
        if isinstance(part.get("items"), list):
            part["prefixItems"], part["items"] = part["items"], part.pop("additionalItems", True)
        for keyword in ("properties", "patternProperties"):
            inner = part.get(keyword)
            if isinstance(inner, dict):
                part[keyword] = {name: {"not": {}} if each is False else each for name, each in inner.items()}
    return copied


def _has_target(reference: str, path: Path, parts: Mapping[Path, Any]) -> bool:
    if reference == "#" or reference.startswith("#/"):
        return path_of(reference) in parts
    base = ""
    for length in range(len(path) + 1):
        identifier = parts.get(path[:length], {}).get("$id")
        base = urljoin(base, identifier) if isinstance(identifier, str) else base
    whole = DRAFT202012.create_resource(parts[()])
    try:
        registry = Registry().with_resources({whole.id() or "": whole, "": whole}.items()).crawl()
        registry.resolver(base).lookup(reference)
    except (Unresolvable, ValueError):
        return False
    return True


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
