"""Log-probabilities in OpenAI's format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_petals.pieces import TokenLogprobs


def openai_logprobs(logprobs: TokenLogprobs, token_text: Callable[[int], str]) -> dict[str, Any]:
    """Return a dictionary of `token`, `logprob` and `top_logprobs` (the likeliest tokens at this position).

    Args:
        logprobs: The engine's report for one token.
        token_text: Returns the text of a token id.
    """
    top = [{"token": token_text(token), "logprob": value} for token, value in logprobs.top]
    return {"token": token_text(logprobs.token), "logprob": logprobs.logprob, "top_logprobs": top}
