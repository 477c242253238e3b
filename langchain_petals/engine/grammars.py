"""Schemas, regular expressions and Lark grammars as text for llguidance, checked without a model.

A grammar is a string that `llguidance.LLMatcher` takes: Lark, with JSON schemas inline. Importing this module loads
neither torch nor transformers, so whoever writes a constraint down hears at once that it cannot be kept.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Path = tuple[str, ...]

ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "

# One way to write a value down, which is how `json.dumps(value, ensure_ascii=False)` writes it: there is no white space
# for a weak model to get lost in, and what was parsed can be written down again as it was (numbers like 1e5 apart).
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ITEM_SEPARATOR,
    "key_separator": KEY_SEPARATOR,
    "json_allowed_escapes": '"\\bfnrtu',  # u for control characters only
}

_DATA = frozenset({"const", "enum", "default", "examples"})  # keywords whose values are data, not schemas
_NAMED = ("$defs", "definitions", "properties", "patternProperties")  # the keys of their values are names, not keywords

_ANY_TEXT = frozenset({"path", "binary", "password"})  # formats that every text has
_YEAR = r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_DAY_OF_YEAR = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
)
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = f"(?:{_YEAR}-{_DAY_OF_YEAR}|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_PATTERNS = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""Dates and times (RFC 3339) that there are in Python, too: none has the year 0 or a 60th second."""


def json_rule(schema: Mapping[str, Any], name: str) -> str:
    """Return what stands for a JSON schema in a Lark rule.

    Args:
        schema: JSON schema.
        name: How the caller knows it, for messages.

    Raises:
        InvalidRequestError: The schema is no JSON, or asks for what cannot be guaranteed while decoding.
    """
    try:
        text = json.dumps({**schema, "x-guidance": _JSON_STYLE}, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be used to constrain an answer: it cannot be written as JSON: {error}"
        raise InvalidRequestError(msg) from None
    plain = json.loads(text)
    for _, part in subschemas(plain):
        _check(part, name)
        _make_exact(part)
    return f"%json {json.dumps(plain)}"


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


def _check(part: Mapping[str, Any], name: str) -> None:
    least, required = part.get("minProperties"), part.get("required")
    is_closed = part.get("additionalProperties") is False and "patternProperties" not in part
    if isinstance(least, int) and not is_closed and least > 1 + len(required if isinstance(required, list) else ()):
        msg = (
            f"{name} cannot be used to constrain an answer: minProperties={least} cannot be guaranteed, since a key "
            "that no property names may come twice; list the keys in properties and required"
        )
        raise InvalidRequestError(msg)


def _make_exact(part: dict[str, Any]) -> None:
    """Say in keywords that llguidance keeps what it would refuse, or keep too loosely."""
    if part.get("uniqueItems") is False:
        del part["uniqueItems"]
    form = part.get("format")
    if form in _ANY_TEXT:
        del part["format"]
    elif form in _PATTERNS and part.get("type") == "string" and "pattern" not in part:
        del part["format"]
        part["pattern"] = _PATTERNS[form]


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return a grammar of the JSON texts that fit a schema, each in the one form that `json.dumps` would give it.

    Args:
        schema: JSON schema, draft 2020-12; see llguidance's docs/json_schema.md for the keywords it knows.

    Raises:
        InvalidRequestError: The grammar cannot express the schema; says what of it.
    """
    return checked(f"start: {json_rule(schema, 'json_schema')}", "json_schema")


def regex_grammar(pattern: str) -> str:
    """Return a grammar of the texts that match a regular expression as a whole.

    Args:
        pattern: In the syntax of Rust's regex crate: no look-around, no back-references.

    Raises:
        InvalidRequestError: It does not compile.
    """
    return checked(LLMatcher.grammar_from_regex(pattern), "regex")


def lark_grammar(grammar: str) -> str:
    """Return a Lark grammar, checked.

    Args:
        grammar: Rules in llguidance's variant of Lark, with a rule named `start`.

    Raises:
        InvalidRequestError: It does not compile.
    """
    return checked(grammar, "grammar")


@functools.lru_cache(maxsize=256)
def checked(grammar: str, name: str) -> str:
    """Return the grammar if it compiles.

    Args:
        grammar: What llguidance takes.
        name: How the caller knows it, for the message.

    Raises:
        InvalidRequestError: It does not compile; carries llguidance's reason.
    """
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error:
        # the lines after the first show the grammar, which the caller may never have seen
        reason = messages[0].partition("\n   1 | ")[0].removeprefix("at 1(8): ").strip()
        msg = f"{name} cannot be used to constrain an answer: {reason}"
        raise InvalidRequestError(msg)
    return grammar


def literal(text: str) -> str:
    """Return what stands for a text in a Lark rule."""
    return json.dumps(text, ensure_ascii=False)


def special_rules(names: Mapping[str, str], specials: Mapping[str, int]) -> str:
    """Return Lark rules, one for each name, that match a marker's text: as a special token where it is one.

    Args:
        names: The marker's text by the rule's name.
        specials: Ids of the vocabulary's special tokens by their text.
    """
    return "".join(
        f"\n{name}: <[{specials[text]}]>" if text in specials else f"\n{name}: {literal(text)}"
        for name, text in names.items()
    )
