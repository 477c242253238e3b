"""Constraints: masks of the tokens that a grammar allows next."""

from langchain_petals.engine.constraints.guide import Grammars, Guide

__all__ = ["Grammars", "Guide"]
