"""Schemas, regular expressions and Lark grammars as text for llguidance, checked without a model.

A grammar is a string that `llguidance.LLMatcher` takes: Lark, with JSON schemas inline. Importing this module loads
neither torch nor transformers, so whoever writes a constraint down hears at once that it cannot be kept.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars.check import SchemaCheck, checkable_schema
from langchain_petals.grammars.exact import (
    compile_error,
    format_to_pattern,
    has_discriminator,
    make_exact,
    reason_in,
    relax_one_of,
)
from langchain_petals.grammars.loosening import LeftOut, remove_refused, remove_unsupported
from langchain_petals.schemas import subschemas

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


@dataclass(frozen=True)
class SchemaRule:
    """A JSON schema as a grammar.

    Attributes:
        rule: What stands for it in a Lark rule.
        left_out: What the grammar does not keep to, and has to be checked when the text is there.
        ignored: What cannot be checked either, and why.
    """

    rule: str
    left_out: tuple[LeftOut, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """What a user has to know of it; None if the grammar keeps to all of the schema."""
        parts = []
        if self.left_out:
            kept = ", ".join(map(str, self.left_out))
            parts.append(f"{kept} cannot be guaranteed while decoding, and will be checked after generation")
        parts += [f"{each} cannot be checked either, and is ignored" for each in self.ignored]
        return "; ".join(parts) or None


def schema_rule(schema: Mapping[str, Any], name: str, *, strict: bool = True) -> SchemaRule:
    """Return what stands for a JSON schema in a Lark rule.

    Args:
        schema: JSON schema.
        name: How the caller knows it, for messages.
        strict: Whether to refuse a schema of which something cannot be guaranteed while decoding.

    Raises:
        InvalidRequestError: The schema is no JSON, or it is strict and asks for what cannot be guaranteed.
    """
    return _expressed(_as_json(schema, name), name, strict)


def schema_check(schema: Mapping[str, Any]) -> SchemaCheck:
    """Return what tells whether a value fits a JSON schema, but for what of that `schema_rule` says to be ignored."""
    return _check_of(_as_json(schema, "json_schema"))


def json_grammar(schema: Mapping[str, Any], *, strict: bool = True) -> str:
    """Return a grammar of the JSON texts that fit a schema, each in the one form that `json.dumps` would give it.

    Args:
        schema: JSON schema, draft 2020-12; see llguidance's docs/json_schema.md for the keywords it knows.
        strict: Whether to refuse a schema that the grammar cannot express as a whole; see `schema_rule`.

    Raises:
        InvalidRequestError: The grammar cannot express the schema, or a part of it means nothing; says what of it.
    """
    expressed = schema_rule(schema, "json_schema", strict=strict)
    if expressed.ignored:
        msg = f"json_schema cannot be used to constrain an answer: {expressed.ignored[0]}"
        raise InvalidRequestError(msg)
    return validated(f"start: {expressed.rule}", "json_schema")


def _as_json(schema: Mapping[str, Any], name: str) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be used to constrain an answer: it cannot be written as JSON: {error}"
        raise InvalidRequestError(msg) from None


@functools.lru_cache(maxsize=256)
def _expressed(text: str, name: str, strict: bool) -> SchemaRule:  # noqa: FBT001 - a cache's key
    schema = json.loads(text)
    make_exact(schema)
    left_out = remove_unsupported(schema)
    if compile_error(_styled(schema)) is not None:
        left_out += remove_refused(schema)
    if strict and left_out:
        msg = f"{name} cannot be used to constrain an answer: {left_out[0]} cannot be kept to: {left_out[0].reason}"
        raise InvalidRequestError(msg)
    _, ignored = checkable_schema(json.loads(text)) if left_out else (None, {})
    places = {(each.path, each.keyword): each for each in left_out}
    return SchemaRule(
        f"%json {json.dumps(_styled(schema))}",
        tuple(each for place, each in places.items() if place not in ignored),
        tuple(f"{each} ({ignored[place]})" for place, each in places.items() if place in ignored),
    )


def _styled(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": _JSON_STYLE}


@functools.lru_cache(maxsize=256)
def _check_of(text: str) -> SchemaCheck:
    schema, _ = checkable_schema(json.loads(text))
    for _, part in subschemas(schema):
        format_to_pattern(part)  # two branches of `oneOf` may differ in nothing else
        if has_discriminator(part):
            relax_one_of(part)
    return SchemaCheck(schema)


def regex_grammar(pattern: str) -> str:
    """Return a grammar of the texts that match a regular expression as a whole.

    Args:
        pattern: In the syntax of Rust's regex crate: no look-around, no back-references.

    Raises:
        InvalidRequestError: It does not compile.
    """
    return validated(LLMatcher.grammar_from_regex(pattern), "regex")


def lark_grammar(grammar: str) -> str:
    """Return a Lark grammar, checked.

    Args:
        grammar: Rules in llguidance's variant of Lark, with a rule named `start`.

    Raises:
        InvalidRequestError: It does not compile.
    """
    return validated(grammar, "grammar")


@functools.lru_cache(maxsize=256)
def validated(grammar: str, name: str) -> str:
    """Return the grammar if it compiles.

    Args:
        grammar: What llguidance takes.
        name: How the caller knows it, for the message.

    Raises:
        InvalidRequestError: It does not compile; carries llguidance's reason.
    """
    is_error, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    if is_error:
        msg = f"{name} cannot be used to constrain an answer: {reason_in(messages[0])}"
        raise InvalidRequestError(msg)
    return grammar


def lark_string(text: str) -> str:
    """Return what stands for a text in a Lark rule."""
    return json.dumps(text, ensure_ascii=False)
