"""Log-probabilities in the shape that OpenAI's models made known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_petals.pieces import TokenLogprobs


def openai_logprobs(logprobs: TokenLogprobs, token_text: Callable[[int], str]) -> dict[str, Any]:
    """Return how likely a token was, and which were likeliest: `token`, `logprob` and `top_logprobs`.

    Args:
        logprobs: What the engine reports for one token.
        token_text: Gives the text of a token id.
    """
    top = [{"token": token_text(token), "logprob": value} for token, value in logprobs.top]
    return {"token": token_text(logprobs.token), "logprob": logprobs.logprob, "top_logprobs": top}
