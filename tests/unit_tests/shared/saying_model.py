"""A model that says a given text."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM


class SayingModel(LlamaForCausalLM):  # type: ignore[misc]
    """A model whose likeliest tokens are those of a text, in each answer from the beginning.

    Args:
        tokenizer: Encodes the text; its end token follows.
        text: The text to say.
    """

    def __init__(self, tokenizer: Any, text: str) -> None:
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        super().__init__(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=4096, **sizes))
        self._ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        self._said = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        if kwargs["input_ids"].shape[1] > 1:  # a prompt, so a new answer begins
            self._said = 0
        out.logits[:, -1, self._ids[self._said % len(self._ids)]] += 1000
        self._said += 1
        return out
