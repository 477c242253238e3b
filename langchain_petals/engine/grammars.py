"""Schemas, regular expressions and Lark grammars as text for llguidance, checked without a model.

A grammar is a string that `llguidance.LLMatcher` takes: Lark, with JSON schemas inline. Importing this module loads
neither torch nor transformers, so whoever writes a constraint down hears at once that it cannot be kept.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from langchain_petals.engine.json_schema import make_exact
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "

# One way to write a value down, which is how `json.dumps(value, ensure_ascii=False)` writes it: there is no white space
# for a weak model to get lost in, and what was parsed can be written down again as it was (numbers like 1.50 apart).
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ITEM_SEPARATOR,
    "key_separator": KEY_SEPARATOR,
    "json_allowed_escapes": '"\\bfnrtu',  # u for control characters only
}


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
    make_exact(plain, name)
    return f"%json {json.dumps(plain)}"


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
