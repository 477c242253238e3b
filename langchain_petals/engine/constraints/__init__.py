"""Constraints: masks of the tokens that a grammar allows next."""

from langchain_petals.engine.constraints.guide import Choosing, Grammars, Guide, Mask

__all__ = ["Choosing", "Grammars", "Guide", "Mask"]
