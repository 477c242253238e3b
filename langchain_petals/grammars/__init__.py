"""Schemas, regular expressions and Lark rules as grammars, and what else an answer has to look like."""

from langchain_petals.grammars.constraint import Constraint, Trigger
from langchain_petals.grammars.writing import (
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
