"""Keys of maps in JSON: strings that pydantic converts to the keys of a Python dictionary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_petals.schemas.json_schema import ANNOTATIONS, listed_values

if TYPE_CHECKING:
    from collections.abc import Mapping


def key_texts(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of strings that pydantic converts to such keys; empty if it converts any string.

    Example:
        >>> from langchain_petals.schemas.key_texts import key_texts
        >>> key_texts({"type": "boolean"})
        {'enum': ['true', 'false']}
    """
    for key in ("anyOf", "oneOf"):
        if isinstance(keys.get(key), list):
            branches = [key_texts(each) for each in keys[key] if each.get("type") != "null"]
            return {} if {} in branches else {"anyOf": branches} if len(branches) > 1 else branches[0]
    values = listed_values(keys)
    if values is not None:
        texts = [each for each in values if isinstance(each, str)]
        # pydantic converts strings to an enumeration's integers, but not if the enumeration has strings, too
        return {"enum": texts or [json.dumps(each) for each in values if isinstance(each, int)]}
    kind = keys.get("type")
    if kind == "boolean":
        return {"enum": ["true", "false"]}
    if kind in ("integer", "number"):
        return _numbers(keys)
    return {key: value for key, value in keys.items() if key not in ANNOTATIONS and (key, value) != ("type", "string")}


DECIMAL = r"^-?(?:0|[1-9]\d{0,14})(?:\.\d{1,15})?$"
"""Pattern of numbers that are written as strings."""

_MOST_LISTED = 1024


def _numbers(keys: Mapping[str, Any]) -> dict[str, Any]:
    low, high = keys.get("minimum"), keys.get("maximum")
    bounds = {key: value for key, value in keys.items() if key not in ANNOTATIONS and key != "type"}
    if keys["type"] == "number":
        return {"pattern": DECIMAL, **bounds}
    low = low if "exclusiveMinimum" not in keys else keys["exclusiveMinimum"] + 1
    high = high if "exclusiveMaximum" not in keys else keys["exclusiveMaximum"] - 1
    if low is not None and high is not None and 0 <= high - low < _MOST_LISTED:
        step = keys.get("multipleOf", 1)
        return {"enum": [str(number) for number in range(int(low), int(high) + 1) if number % step == 0]}
    if (low, high) in _SIGNS and "multipleOf" not in keys:
        return {"pattern": _SIGNS[low, high]}
    # bounds have no effect on strings: the caller finds these keywords, and reports that they are not enforced
    return {"pattern": _SIGNS[None, None], **bounds}


_SIGNS: dict[tuple[int | None, int | None], str] = {
    (None, None): r"^-?(?:0|[1-9]\d{0,17})$",
    (0, None): r"^(?:0|[1-9]\d{0,17})$",
    (1, None): r"^[1-9]\d{0,17}$",
    (None, 0): r"^(?:0|-[1-9]\d{0,17})$",
    (None, -1): r"^-[1-9]\d{0,17}$",
}
"""Patterns of integers by their minimum and maximum."""
