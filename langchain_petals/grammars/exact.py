"""JSON schemas said in keywords that llguidance keeps to exactly, where it would keep to them too loosely."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from jsonschema.validators import validator_for
from llguidance import LLMatcher

from langchain_petals.schemas import path_of, subschemas

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.schemas import Path

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
PATTERNS = {
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
_SIZES = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_ANY_TEXT = frozenset({"path", "file-path", "directory-path", "binary", "password"})  # formats that every text has


def make_exact(schema: dict[str, Any]) -> None:
    """Change a JSON schema so that what llguidance allows fits it, and is read as it was meant.

    A format that neither llguidance nor this module knows is taken out: JSON schema has formats as annotations.

    Args:
        schema: JSON schema.
    """
    parts = dict(subschemas(schema))
    for part in parts.values():
        if validator_for(part, default=None) is None:
            part.pop("$schema", None)  # llguidance would look for it elsewhere
        _write_sizes_as_integers(part)
        format_to_pattern(part)
        _close_bounds(part)
        if has_discriminator(part):
            _require(part["discriminator"]["propertyName"], part, parts)
            relax_one_of(part)


def _write_sizes_as_integers(part: dict[str, Any]) -> None:
    """Say 3 for 3.0, which JSON schema allows and llguidance refuses."""
    for key in _SIZES & part.keys():
        if isinstance(part[key], float) and part[key].is_integer():
            part[key] = int(part[key])


def format_to_pattern(part: dict[str, Any]) -> None:
    """Say a format as a pattern where this module knows it better than llguidance, and drop one that nobody knows."""
    form = part.get("format")
    if isinstance(form, str) and form in PATTERNS and "pattern" not in part:
        del part["format"]
        part["pattern"] = f"^{PATTERNS[form]}$"
    elif "format" in part and not (isinstance(form, str) and form not in _ANY_TEXT and _is_known(form)):
        del part["format"]


@functools.lru_cache(maxsize=256)
def _is_known(form: str) -> bool:
    return compile_error({"type": "string", "format": form}) is None


@functools.lru_cache(maxsize=256)
def is_supported_pattern(pattern: str) -> bool:
    """Whether llguidance can make a grammar of a regular expression: it knows no look-around, for instance."""
    return compile_error({"type": "string", "pattern": pattern}) is None


def compile_error(schema: Mapping[str, Any]) -> str | None:
    """Return why llguidance cannot make a grammar of a schema; None if it can."""
    is_error, messages = LLMatcher.validate_grammar_with_warnings(f"start: %json {json.dumps(schema)}")
    return reason_in(messages[0]) if is_error else None


def reason_in(message: str) -> str:
    """Return what a message of llguidance's says, without the grammar that follows: nobody else wrote that."""
    reason = message.partition("\n   1 | ")[0].removeprefix("at 1(8): ").strip()
    return reason.removeprefix("failed to compile JSON schema: ")


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


def relax_one_of(part: dict[str, Any]) -> None:
    """Say `anyOf` for `oneOf`, if there is any."""
    if part.get("oneOf"):
        branches = part.pop("oneOf")
        if "anyOf" in part:
            part["allOf"] = [*part.get("allOf", ()), {"anyOf": branches}]
        else:
            part["anyOf"] = branches


def has_discriminator(part: Mapping[str, Any]) -> bool:
    """Whether OpenAPI's `discriminator` tells which branch of `oneOf` a value is of, though it may fit others too."""
    discriminator = part.get("discriminator")
    return isinstance(discriminator, dict) and isinstance(discriminator.get("propertyName"), str)


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
