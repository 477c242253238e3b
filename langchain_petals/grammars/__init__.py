"""Constraints on answers: grammars of schemas, regular expressions and Lark rules, and their triggers."""

from langchain_petals.grammars.builders import (
    ITEM_SEPARATOR,
    SchemaRule,
    json_grammar,
    lark_grammar,
    lark_string,
    regex_grammar,
    schema_check,
    schema_rule,
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
]
