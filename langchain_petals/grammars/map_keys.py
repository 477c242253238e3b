"""Rewrites `propertyNames`, which llguidance does not know, as `properties` or `patternProperties`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from langchain_petals.grammars.check import SchemaCheck
from langchain_petals.grammars.exact import is_supported
from langchain_petals.schemas import ANNOTATIONS, Path, listed_values, resolved

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEX = "[0-9a-fA-F]"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}"
_FORMATS = {
    "uuid": f"{_HEX}{{8}}-(?:{_HEX}{{4}}-){{3}}{_HEX}{{12}}",
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "ipv6": f"(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}",
    "hostname": _HOST,
    "email": rf"[a-zA-Z0-9_+-]+(?:\.[a-zA-Z0-9_+-]+){{0,3}}@{_LABEL}(?:\.{_LABEL}){{1,3}}",
    "uri": rf"[a-z][a-z0-9+.-]{{0,15}}://{_HOST}(?::\d{{1,4}})?(?:/[a-zA-Z0-9._~%-]*)*",
}
"""Patterns of keys in the formats that llguidance knows by itself; for addresses they allow only common forms."""

_WHOLE = re.compile(r"\^(.*)(?<!\\)\$", re.DOTALL)
_PARTS = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|.", re.DOTALL)

_MOST_NAMED = 50
"""Up to this number, keys become properties; more become a pattern, as llguidance examines all properties each step."""

_NO_STRING: dict[str, Any] = {"enum": []}
_STRING_KEYWORDS = frozenset({"type", "enum", "const", "pattern", "format", "minLength", "maxLength", "anyOf", "oneOf"})


def rewrite_property_names(part: dict[str, Any], parts: Mapping[Path, dict[str, Any]]) -> bool:
    """Replace `propertyNames` in a part of a document; return whether the replacement restricts keys as much."""
    names = part.pop("propertyNames", True)
    others = part.get("additionalProperties", True)
    named = part.get("properties") or {}
    keys = _Keys(names, parts)
    if keys.pattern is not None and not is_supported("pattern", keys.pattern):
        return False
    if keys.are_unrestricted or not isinstance(named, dict):
        return keys.is_exact and isinstance(named, dict)
    if "patternProperties" in part:
        return False
    texts, pattern = keys.texts, keys.pattern
    if texts is not None and len(texts) > _MOST_NAMED:
        texts, pattern = None, _pattern_of(keys)
    allowed = {key: each if keys.allows(key) else False for key, each in named.items()}
    if others is not False and texts is not None:
        allowed |= {key: others for key in texts if key not in named}
        others = False
    elif others is not False and pattern is not None:
        if others is not True and any(each is not False for each in allowed.values()):
            return False  # a named property may match the pattern too, and its value would have to fit both schemas
        part["patternProperties"] = {pattern: others}
        others = False
    if allowed:
        part["properties"] = allowed
    part["additionalProperties"] = others
    return keys.is_exact


class _Keys:
    """The keys that a schema allows: a list of all (`texts`), or a `pattern` that matches somewhere in each key.

    `is_exact` tells whether `texts` or `pattern` restricts keys as much as the schema does.
    """

    def __init__(self, names: Any, parts: Mapping[Path, dict[str, Any]]) -> None:
        names = _NO_STRING if names is False else resolved(names, parts) if isinstance(names, dict) else {}
        types = names.get("type", "string")
        if types != "string" and "string" not in types:
            names = _NO_STRING
        for key in ("anyOf", "oneOf"):
            if isinstance(names.get(key), list):
                names = {**names, key: [resolved(each, parts) for each in names[key]]}
        self._check = SchemaCheck(names)
        listed = listed_values(names)
        patterns = _patterns(names, parts) if listed is None else []
        self.texts = None if listed is None else [key for key in listed if isinstance(key, str) and self.allows(key)]
        self.pattern = patterns[0] if patterns else None  # keys can have one pattern only
        self.are_unrestricted = listed is None and not patterns
        self.is_exact = names.keys() - ANNOTATIONS <= _STRING_KEYWORDS and len(patterns) <= 1

    def allows(self, key: str) -> bool:
        return self._check.problem(key) is None


def _patterns(names: Mapping[str, Any], parts: Mapping[Path, dict[str, Any]]) -> list[str]:
    """Return regular expressions that must all match somewhere in a key."""
    patterns = []
    if isinstance(names.get("pattern"), str):
        patterns.append(names["pattern"])
    if isinstance(names.get("format"), str) and names["format"] in _FORMATS:
        patterns.append(f"^{_FORMATS[names['format']]}$")
    for key in ("anyOf", "oneOf"):
        if isinstance(names.get(key), list):
            found = [_Keys(each, parts) for each in names[key]]
            if any(each.are_unrestricted and each.is_exact for each in found):
                continue  # any string fits
            patterns.append(_any_of([_pattern_of(each) for each in found]))
    least, most = names.get("minLength", 0), names.get("maxLength", "")
    if least or most != "":
        patterns.append(rf"^[\s\S]{{{least},{most}}}$")
    return patterns


def _pattern_of(keys: _Keys) -> str:
    if keys.texts is None:
        return keys.pattern or ""
    return "^(?:" + "|".join(_literal(text) for text in keys.texts) + ")$"


def _any_of(patterns: Sequence[str]) -> str:
    """Return one pattern for several; llguidance does not allow anchors inside of alternatives."""
    distinct = list(dict.fromkeys(patterns))
    whole = [_WHOLE.fullmatch(pattern) for pattern in distinct]
    if all(whole) and not any(_has_alternatives(each[1]) for each in whole if each):
        return "^(?:" + "|".join(each[1] for each in whole if each) + ")$"
    return "|".join(f"(?:{pattern})" for pattern in distinct)


def _has_alternatives(pattern: str) -> bool:
    """Whether a pattern has alternatives outside of groups: anchors then belong to the first and last of them only."""
    depth = 0
    for part in _PARTS.findall(pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and depth == 0:
            return True
    return False


def _literal(text: str) -> str:
    return "".join(character if character.isalnum() else rf"\x{{{ord(character):x}}}" for character in text)
