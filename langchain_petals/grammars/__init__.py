"""Schemas, regular expressions and Lark rules as grammars, and what else an answer has to look like."""

from langchain_petals.grammars.builders import (
    ITEM_SEPARATOR,
    Expressed,
    check_of,
    checked,
    express,
    json_grammar,
    lark_grammar,
    literal,
    regex_grammar,
)
from langchain_petals.grammars.constraint import Constraint, Trigger

__all__ = [
    "ITEM_SEPARATOR",
    "Constraint",
    "Expressed",
    "Trigger",
    "check_of",
    "checked",
    "express",
    "json_grammar",
    "lark_grammar",
    "literal",
    "regex_grammar",
]
