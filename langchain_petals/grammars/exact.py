"""Replaces keywords of JSON schemas for which llguidance is too permissive by keywords that it enforces exactly."""

from __future__ import annotations

import functools
import json
import math
from typing import TYPE_CHECKING, Any

from jsonschema.validators import validator_for
from llguidance import LLMatcher

from langchain_petals.schemas import Path, subschemas, target_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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
"""Patterns of formats that llguidance does not know, or for which it is too permissive.

Dates, times and durations (RFC 3339) are valid in Python, too: none has the year 0 or second 60, and no number in a
duration has more than four digits. OpenAPI's `byte` is `base64`; pydantic has UUIDs by version.
"""
_SIZES = frozenset({"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"})
_ANY_TEXT = frozenset({"path", "file-path", "directory-path", "binary", "password"})  # allow all strings


def make_exact(schema: dict[str, Any]) -> None:
    """Rewrite a JSON schema in place so that all values that llguidance allows fit the original schema.

    Formats that neither llguidance nor this module knows are removed: in JSON schema they are annotations.
    """
    parts = dict(subschemas(schema))
    for part in parts.values():
        if validator_for(part, default=None) is None:
            part.pop("$schema", None)  # llguidance would try to load it
        for key in _SIZES & part.keys():  # llguidance allows 3, but not 3.0
            if isinstance(part[key], float) and part[key].is_integer():
                part[key] = int(part[key])
        format_to_pattern(part)
        _close_bounds(part)
        if has_discriminator(part):
            _require(part["discriminator"]["propertyName"], part, parts)
            relax_one_of(part)


def format_to_pattern(part: dict[str, Any]) -> None:
    """Replace a format with its pattern if this module has one; remove a format that llguidance does not know."""
    name = part.get("format")
    if isinstance(name, str) and name in PATTERNS and "pattern" not in part:
        del part["format"]
        part["pattern"] = f"^{PATTERNS[name]}$"
    elif "format" in part and not (isinstance(name, str) and name not in _ANY_TEXT and is_supported("format", name)):
        del part["format"]


@functools.lru_cache(maxsize=256)
def is_supported(keyword: str, value: str) -> bool:
    """Whether llguidance supports a `format` or `pattern` of strings; it has no look-around, for instance."""
    return schema_error({"type": "string", keyword: value}) is None


def schema_error(schema: Mapping[str, Any]) -> str | None:
    """Return why llguidance refuses a schema; None if it does not."""
    return grammar_error(f"start: %json {json.dumps(schema)}")


def grammar_error(grammar: str) -> str | None:
    """Return why llguidance refuses a grammar, without the grammar that follows in its message; None if it does not."""
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    reason = messages[0].partition("\n   1 | ")[0].removeprefix("at 1(8): ").strip() if is_error else None
    return reason and reason.removeprefix("failed to compile JSON schema: ")


def _close_bounds(part: dict[str, Any]) -> None:
    """Replace an exclusive bound with an inclusive one next to it, where llguidance would allow the bound itself.

    Llguidance has this fault for an integer bound if the other bound is farther from 0, by less than 1. For numbers
    above 0 and up to 0.5, for instance, it allows 0.
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
    """Return a number next to a bound, between both bounds."""
    step = min(1e-9, abs(other - bound) / 1024)
    near = bound + math.copysign(step, other - bound)
    return math.nextafter(bound, other) if near == bound else near


def relax_one_of(part: dict[str, Any]) -> None:
    """Replace `oneOf` with `anyOf`, if there is any."""
    if part.get("oneOf"):
        branches = part.pop("oneOf")
        if "anyOf" in part:
            part["allOf"] = [*part.get("allOf", ()), {"anyOf": branches}]
        else:
            part["anyOf"] = branches


def has_discriminator(part: Mapping[str, Any]) -> bool:
    """Whether OpenAPI's `discriminator` selects the branch of `oneOf`, even if a value fits several branches."""
    discriminator = part.get("discriminator")
    return isinstance(discriminator, dict) and isinstance(discriminator.get("propertyName"), str)


def _require(key: str, part: dict[str, Any], parts: Mapping[Path, dict[str, Any]]) -> None:
    """Require the property of a `discriminator` in all branches of a schema.

    OpenAPI requires it always, but pydantic does not list it in `required` if it has a default.
    """
    reached = [part]
    for each in reached:  # the list grows during the loop
        if isinstance(each.get("properties"), dict) and key in each["properties"]:
            each["required"] = list(dict.fromkeys([*each.get("required", ()), key]))
        composed = (each.get(keyword) for keyword in ("anyOf", "oneOf", "allOf"))
        inner = [member for members in composed if isinstance(members, list) for member in members]
        if (target := target_of(each, parts)) is not None:
            inner.append(parts[target])
        reached += [one for one in inner if isinstance(one, dict) and not any(one is other for other in reached)]
