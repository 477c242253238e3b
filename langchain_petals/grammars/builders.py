"""Builds grammars for llguidance from JSON schemas, regular expressions and Lark rules, and validates them.

A grammar is a string that `llguidance.LLMatcher` takes: Lark, with JSON schemas inline. This needs no model, neither
torch nor transformers, so users get the error for a wrong constraint at once. Results depend on the arguments only, so
the functions cache them for the process.
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
    format_to_pattern,
    grammar_error,
    has_discriminator,
    make_exact,
    relax_one_of,
    schema_error,
)
from langchain_petals.grammars.loosening import LeftOut, remove_refused, remove_unsupported
from langchain_petals.schemas import subschemas

if TYPE_CHECKING:
    from collections.abc import Mapping

ITEM_SEPARATOR, KEY_SEPARATOR = ", ", ": "

# Each value has only one JSON text, that of `json.dumps(value, ensure_ascii=False)`. So weak models cannot write
# endless white space, and a parsed value can be written again with the same tokens (except numbers like 1.50).
_JSON_STYLE = {
    "whitespace_flexible": False,
    "item_separator": ITEM_SEPARATOR,
    "key_separator": KEY_SEPARATOR,
    "json_allowed_escapes": '"\\bfnrtu',  # u for control characters only
}


@dataclass(frozen=True)
class SchemaRule:
    """A JSON schema as an expression in a Lark rule.

    Attributes:
        rule: The expression.
        left_out: Keywords that the grammar does not enforce; the answer must be checked against them.
        ignored: Keywords that cannot be checked either, each with its reason.
    """

    rule: str
    left_out: tuple[LeftOut, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def warning(self) -> str | None:
        """A warning about keywords that the grammar does not enforce; None if it enforces the whole schema."""
        parts = []
        if self.left_out:
            keywords = ", ".join(map(str, self.left_out))
            parts.append(f"{keywords} cannot be guaranteed while decoding, and will be checked after generation")
        parts += [f"{each} can be neither guaranteed nor checked and is ignored" for each in self.ignored]
        return "; ".join(parts) or None


def schema_rule(schema: Mapping[str, Any], name: str, *, strict: bool = True) -> SchemaRule:
    """Return a JSON schema as an expression in a Lark rule; errors call the schema `name`.

    Raises:
        InvalidRequestError: The schema is not JSON, no grammar can be made from it, or the grammar cannot enforce a
            keyword although `strict` is set.
    """
    return _schema_rule(_as_json(schema, name), name, strict)


def schema_check(schema: Mapping[str, Any]) -> SchemaCheck:
    """Return a check of values against a JSON schema, without the keywords that `schema_rule` ignores."""
    return _schema_check(_as_json(schema, "json_schema"))


def json_grammar(schema: Mapping[str, Any], *, strict: bool = True) -> str:
    """Return a grammar of the JSON texts that fit a schema, as `json.dumps` writes them.

    Args:
        schema: JSON schema, draft 2020-12; see llguidance's docs/json_schema.md for the keywords it knows.
        strict: Whether to refuse a schema that the grammar cannot enforce as a whole.

    Raises:
        InvalidRequestError: The grammar cannot enforce a keyword, or a keyword is invalid; names the keyword.
    """
    found = schema_rule(schema, "json_schema", strict=strict)
    if found.ignored:
        msg = f"json_schema cannot be used to constrain an answer: {found.ignored[0]}"
        raise InvalidRequestError(msg)
    return f"start: {found.rule}"


def _as_json(schema: Mapping[str, Any], name: str) -> str:
    try:
        return json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"{name} cannot be used to constrain an answer: it cannot be written as JSON: {error}"
        raise InvalidRequestError(msg) from None


@functools.lru_cache(maxsize=256)
def _schema_rule(text: str, name: str, strict: bool) -> SchemaRule:  # noqa: FBT001 - a cache's key
    schema = json.loads(text)
    make_exact(schema)
    left_out = remove_unsupported(schema)
    if schema_error(_styled(schema)) is not None:
        left_out += remove_refused(schema)
    if strict and left_out:
        msg = f"{name} cannot be used to constrain an answer: {left_out[0]} cannot be enforced: {left_out[0].reason}"
        raise InvalidRequestError(msg)
    rule = f"%json {json.dumps(_styled(schema))}"
    validated(f"start: {rule}", name)
    _, ignored = checkable_schema(json.loads(text)) if left_out else (None, {})
    places = {(each.path, each.keyword): each for each in left_out}
    return SchemaRule(
        rule,
        tuple(each for place, each in places.items() if place not in ignored),
        tuple(f"{each} ({ignored[place]})" for place, each in places.items() if place in ignored),
    )


def _styled(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "x-guidance": _JSON_STYLE}


@functools.lru_cache(maxsize=256)
def _schema_check(text: str) -> SchemaCheck:
    schema, _ = checkable_schema(json.loads(text))
    for _, part in subschemas(schema):
        format_to_pattern(part)  # two branches of `oneOf` may differ in nothing else
        if has_discriminator(part):
            relax_one_of(part)
    return SchemaCheck(schema)


def regex_grammar(pattern: str) -> str:
    """Return a grammar of the texts that a regular expression matches from beginning to end.

    Raises:
        InvalidRequestError: Rust's regex crate does not compile it: it has no look-around and no back-references.
    """
    return validated(LLMatcher.grammar_from_regex(pattern), "regex")


def lark_grammar(grammar: str) -> str:
    """Return the grammar (llguidance's variant of Lark, with a rule named `start`) if it compiles.

    Raises:
        InvalidRequestError: It does not compile.
    """
    return validated(grammar, "grammar")


@functools.lru_cache(maxsize=256)
def validated(grammar: str, name: str) -> str:
    """Return the grammar if it compiles; else raise `InvalidRequestError` with this name and llguidance's reason."""
    reason = grammar_error(grammar)
    if reason is not None:
        msg = f"{name} cannot be used to constrain an answer: {reason}"
        raise InvalidRequestError(msg)
    return grammar


def lark_string(text: str) -> str:
    """Return a string literal for a Lark rule that matches a text."""
    return json.dumps(text, ensure_ascii=False)
