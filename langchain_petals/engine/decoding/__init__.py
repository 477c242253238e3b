"""From logits to text: the token loop, sampling, detokenizing, beam search."""

from langchain_petals.engine.decoding.beam_search import Beams, Preferences
from langchain_petals.engine.decoding.loop import decode
from langchain_petals.engine.decoding.row import Row

__all__ = ["Beams", "Preferences", "Row", "decode"]
