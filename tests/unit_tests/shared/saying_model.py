"""A model that says a given text."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM


class SayingModel(LlamaForCausalLM):  # type: ignore[misc]
    """A model whose likeliest tokens are those of a text, in each answer from the beginning.

    At each position, it continues the longest beginning of the text that it has read there last; otherwise it begins.

    Args:
        tokenizer: Encodes the text; its end token follows.
        text: The text to say.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        super().__init__(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes))
        self._ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        # transformers 5 has renamed the cache
        cache, ids = kwargs.get("cache") or kwargs.get("past_key_values"), kwargs["input_ids"]
        before = getattr(cache, "read", None)
        # tokens that were rolled back are no longer in the cache
        read = ids if before is None else torch.cat([before[:, : cache.get_seq_length()], ids], dim=1)
        out = super().forward(*args, **kwargs)
        cache = getattr(out, "cache", None) or out.past_key_values
        if isinstance(cache, tuple):  # older versions give one unless they get a cache, and it can hold no attribute
            out.past_key_values = cache = DynamicCache.from_legacy_cache(cache)
        cache.read = read
        for row, tokens in enumerate(read.tolist()):
            for index in range(ids.shape[1]):
                said = self._said(tokens[: len(tokens) - ids.shape[1] + index + 1])
                out.logits[row, index, self._ids[said % len(self._ids)]] += 1000
        return out

    def _said(self, read: list[int]) -> int:
        """Return how many tokens of the text come last in these."""
        longest = min(len(read), len(self._ids))
        return next(n for n in range(longest, -1, -1) if read[len(read) - n :] == self._ids[:n])
