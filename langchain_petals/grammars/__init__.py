"""Schemas, regular expressions and Lark rules as grammars, and what else an answer has to look like."""

from langchain_petals.grammars.builders import (
    ITEM_SEPARATOR,
    SchemaRule,
    json_grammar,
    lark_grammar,
    lark_string,
    regex_grammar,
    schema_check,
    schema_rule,
    validated,
)
from langchain_petals.grammars.constraint import Constraint, Trigger

__all__ = [
    "ITEM_SEPARATOR",
    "Constraint",
    "SchemaRule",
    "Trigger",
    "json_grammar",
    "lark_grammar",
    "lark_string",
    "regex_grammar",
    "schema_check",
    "schema_rule",
    "validated",
]
