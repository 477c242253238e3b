"""What answers cost, in the format of LangChain's `token_usage`: tokens, and trips through the swarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.pieces import Pieces

_NAMES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "trips",
    "forced_tokens",
    "drafted_tokens",
    "accepted_tokens",
)


def token_usage(generation: Pieces, written: int, *, counts_prompt: bool = True) -> dict[str, int]:
    """Return what one answer cost; complete when the answer has ended.

    The first three names are OpenAI's, as in other LangChain models. The others say how many tokens cost no trip of
    their own: those of the prompt that the servers had (`cached_tokens`), and those of the answer that a grammar forced
    (`forced_tokens`) or that were guessed rightly (`accepted_tokens` of `drafted_tokens`).

    Args:
        generation: The source of the answer.
        written: Number of tokens of the answer.
        counts_prompt: Whether the prompt counts; of several answers to a prompt, only the first one counts it.
    """
    read = generation.prompt_tokens if counts_prompt else 0
    counts = (
        read,
        written,
        read + written,
        min(generation.reused_tokens, read),
        generation.trips,
        generation.forced_tokens,
        generation.drafted_tokens,
        generation.accepted_tokens,
    )
    return dict(zip(_NAMES, counts, strict=True))


def summed_usage(usages: Sequence[dict[str, int]]) -> dict[str, int]:
    """Return the sums of what several answers cost; zeros if there are none."""
    return {name: sum(usage[name] for usage in usages) for name in _NAMES}
