"""From logits to text: the token loop, sampling, detokenizing, beam search."""

from langchain_petals.engine.decoding.beam_search import search
from langchain_petals.engine.decoding.loop import Row, decode

__all__ = ["Row", "decode", "search"]
