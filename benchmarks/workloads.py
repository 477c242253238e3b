"""Work that several benchmarks measure: the steps of one request, and a random model with a large vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.comparison import seconds
from langchain_petals.engine import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerBase

    from langchain_petals.engine import Engine, Request

LARGE_VOCABULARY = 128_000

A_STEP_FOR_EACH_TOKEN = Settings(session_cache=0, runs_ahead=False, speculation=False)


def step_time(engine: Engine, request: Request) -> Callable[[], float]:
    """Return a function that runs a request, and returns the milliseconds per token after the first."""

    def measure() -> float:
        stream = iter(engine.submit([request], A_STEP_FOR_EACH_TOKEN)[0])
        next(stream)
        steps = 0

        def rest() -> None:
            nonlocal steps
            steps = sum(1 for _ in stream)

        return seconds(rest) * 1000 / steps

    return measure


def save_random_model(folder: str, tokenizer: PreTrainedTokenizerBase, *, intermediate_size: int) -> None:
    """Save a Llama model of two small blocks with random weights and `LARGE_VOCABULARY`."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - heavy

    config = LlamaConfig(
        vocab_size=LARGE_VOCABULARY,
        hidden_size=1024,
        intermediate_size=intermediate_size,
        num_hidden_layers=2,
        num_attention_heads=8,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
