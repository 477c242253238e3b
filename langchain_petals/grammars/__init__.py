"""Schemas, regular expressions and Lark rules as grammars, and what else an answer has to look like."""
