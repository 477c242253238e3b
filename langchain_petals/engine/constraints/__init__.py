"""Which tokens an answer may have: masks from grammars."""

from langchain_petals.engine.constraints.guide import Grammars, Guide

__all__ = ["Grammars", "Guide"]
