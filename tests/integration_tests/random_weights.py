"""A model with random weights, and with the bundled model's tokenizer and chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from pathlib import Path


def write_random_model(tiny_folder: Path, folder: Path) -> LlamaForCausalLM:
    """Write the model into a folder, and return it.

    Its weights are large, so that the likeliest token does not depend on rounding.
    """
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return model


def all_but_a_few(folder: Path) -> list[list[int]]:
    """Return tokens to forbid, so that the model soon chooses one that ends a string or an object.

    With all of its tokens, it would hardly ever choose that one.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = [tokenizer.decode([token]) for token in range(len(tokenizer))]
    return [[token] for token, text in enumerate(tokens) if not text or set(text) - set('ab12"{}[]:,. ')]
