"""JSON schemas said in keywords that llguidance keeps to exactly, where it would refuse them or keep to too loosely."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Path = tuple[str, ...]

_DATA = frozenset({"const", "enum", "default", "examples"})  # keywords whose values are data, not schemas
_NAMED = ("$defs", "definitions", "properties", "patternProperties")  # the keys of their values are names, not keywords

_YEAR = r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_DAY_OF_YEAR = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = f"(?:{_YEAR}-{_DAY_OF_YEAR}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_DAYS = r"(?:\d{1,4}Y(?:\d{1,4}M(?:\d{1,4}D)?)?|\d{1,4}M(?:\d{1,4}D)?|\d{1,4}D)"
_HOURS = r"T(?:\d{1,4}H(?:\d{1,4}M(?:\d{1,4}S)?)?|\d{1,4}M(?:\d{1,4}S)?|\d{1,4}S)"
_DURATION = rf"P(?:\d{{1,4}}W|{_DAYS}(?:{_HOURS})?|{_HOURS})"
_HEX = "[0-9a-fA-F]"
_BASE64 = r"(?:[A-Za-z0-9{0}]{{4}})*(?:[A-Za-z0-9{0}][AQgw]==|[A-Za-z0-9{0}]{{2}}[AEIMQUYcgkosw048]=)?"
_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": _DURATION,
    "base64": _BASE64.format("+/"),
    "byte": _BASE64.format("+/"),
    "base64url": _BASE64.format("_-"),
    **{
        f"uuid{version}": f"{_HEX}{{8}}-{_HEX}{{4}}-{version}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
        for version in range(1, 9)
    },
}
"""Formats that llguidance does not know, or knows too loosely.

Dates, times and durations (RFC 3339) are those that there are in Python, too: none has the year 0 or a 60th second, and
no duration has more than four digits of anything. OpenAPI's `byte` is `base64`; pydantic has the UUIDs by version.
"""
_ANY_TEXT = frozenset({"path", "file-path", "directory-path", "binary", "password"})  # formats that every text has


def subschemas(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield each schema in a JSON schema, itself included, and where it is."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from subschemas(each, (*path, str(index)))
    elif isinstance(schema, dict):
        yield path, schema
        for key, inner in schema.items():
            if key in _NAMED and isinstance(inner, dict):
                for name, each in inner.items():
                    yield from subschemas(each, (*path, key, name))
            elif key not in _DATA:
                yield from subschemas(inner, (*path, key))


def path_of(reference: str) -> Path:
    """Return where a JSON pointer (RFC 6901) in a URI's fragment points to."""
    tokens = unquote(reference[1:]).split("/")[1:]
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def make_exact(schema: dict[str, Any], name: str) -> None:
    """Change a JSON schema so that what llguidance allows fits it, and is read as it was meant.

    Args:
        schema: JSON schema.
        name: How the caller knows it, for messages.

    Raises:
        InvalidRequestError: It asks for what cannot be guaranteed while decoding.
    """
    parts = dict(subschemas(schema))
    for part in parts.values():
        _check(part, name)
        if part.get("uniqueItems") is False:
            del part["uniqueItems"]
        _spell_format_out(part)
        _close_bounds(part)
        discriminator = part.get("discriminator")
        if isinstance(discriminator, dict) and isinstance(discriminator.get("propertyName"), str):
            _require(discriminator["propertyName"], part, parts)


def _check(part: Mapping[str, Any], name: str) -> None:
    least, required = part.get("minProperties"), part.get("required")
    is_closed = part.get("additionalProperties") is False and "patternProperties" not in part
    if isinstance(least, int) and not is_closed and least > 1 + len(required if isinstance(required, list) else ()):
        msg = (
            f"{name} cannot be used to constrain an answer: minProperties={least} cannot be guaranteed, since a key "
            "that no property names may come twice; list the keys in properties and required"
        )
        raise InvalidRequestError(msg)


def _spell_format_out(part: dict[str, Any]) -> None:
    form = part.get("format")
    if form in _ANY_TEXT:
        del part["format"]
    elif form in _PATTERNS and part.get("type") in ("string", ["string", "null"]) and "pattern" not in part:
        del part["format"]
        part["pattern"] = f"^{_PATTERNS[form]}$"


def _close_bounds(part: dict[str, Any]) -> None:
    """Say an open bound as a closed one a little further in, where llguidance would let the bound itself pass.

    It does for a whole number with the other bound less than 1 further away from 0: for 0 in what is to be above 0 and
    at most 0.5.
    """
    low, high = _bound(part, "exclusiveMinimum"), _bound(part, "exclusiveMaximum")
    least, most = _bound(part, "minimum"), _bound(part, "maximum")
    top = min((each for each in (high, most) if each is not None), default=math.inf)
    bottom = max((each for each in (low, least) if each is not None), default=-math.inf)
    if low is not None and low >= 0 and 0 < top - low < 1:
        del part["exclusiveMinimum"]
        part["minimum"] = max(bottom, _next_to(low, top))
    if high is not None and high <= 0 and 0 < high - bottom < 1:
        del part["exclusiveMaximum"]
        part["maximum"] = min(top, _next_to(high, bottom))


def _bound(part: Mapping[str, Any], key: str) -> float | None:
    bound = part.get(key)
    return bound if isinstance(bound, (int, float)) and not isinstance(bound, bool) else None


def _next_to(bound: float, other: float) -> float:
    """Return a number that is close to a bound, on the side of the other bound."""
    step = min(1e-9, abs(other - bound) / 1024)
    near = bound + math.copysign(step, other - bound)
    return math.nextafter(bound, other) if near == bound else near


def _require(key: str, part: dict[str, Any], parts: Mapping[Path, dict[str, Any]]) -> None:
    """Require a property of all objects that a schema stands for: it tells which of several classes an object is of.

    OpenAPI's `discriminator` has to be there. Pydantic does not list it among the required ones if it has a default.
    """
    coming: list[dict[str, Any]] = [part]
    seen: list[dict[str, Any]] = []
    while coming:
        each = coming.pop()
        if any(each is other for other in seen):
            continue
        seen.append(each)
        if isinstance(each.get("properties"), dict) and key in each["properties"]:
            each["required"] = list(dict.fromkeys([*each.get("required", ()), key]))
        for composed in ("anyOf", "oneOf", "allOf"):
            inner = each.get(composed)
            coming += [member for member in inner if isinstance(member, dict)] if isinstance(inner, list) else []
        reference = each.get("$ref")
        if isinstance(reference, str) and path_of(reference) in parts:
            coming.append(parts[path_of(reference)])
