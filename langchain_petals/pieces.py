"""Pieces of an answer: the types that the engine passes to the model classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLogprobs:
    """The log-probability of a token in the distribution that it was chosen from, after all processors.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability.
        top: Ids and log-probabilities of the likeliest tokens, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]

    def openai_format(self, token_text: Callable[[int], str]) -> dict[str, Any]:
        """Return `token`, `logprob` and `top_logprobs`, as OpenAI has them; `token_text` returns a token's text."""
        top = [{"token": token_text(token), "logprob": value} for token, value in self.top]
        return {"token": token_text(self.token), "logprob": self.logprob, "top_logprobs": top}


@dataclass(frozen=True)
class Piece:
    """The result of one step of the token loop for one row.

    Attributes:
        text: Text that is now certain. It is empty after half a character or the beginning of a stop sequence.
        generated: Tokens generated so far, an end token included.
        logprobs: The log-probability of the step's token, if it was requested.
        tokens: Tokens generated in this step, an end token included: one, except in the piece of a beam search.
        cut: Whether a grammar has replaced a token of the model, because after it the answer could not have ended
            within the budget.
        finish_reason: On the last piece "stop" (end token or stop sequence) or "length" (the budget was reached, or a
            grammar ended the answer early because of it); else None.
    """

    text: str
    generated: int
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    tokens: tuple[int, ...] = ()
    cut: bool = False


class Pieces(Protocol):
    """An answer while it is generated: an iterable and async iterable of pieces, to be used once.

    Attributes:
        reused_tokens: Tokens of the prompt that an idle session already held; set before the first piece.
        trips: Steps through the swarm that were made for this answer, those of the prompt included. This count and the
            next ones are final with the last piece.
        forced_tokens: Tokens that were taken without a trip of their own, because a grammar allowed no other.
        drafted_tokens: Tokens that were guessed and sent along with a step, to see whether the model chooses them.
        accepted_tokens: The drafted tokens that the model chose. Most of them saved a trip: not the one that ended the
            answer, nor one after which a grammar forced more than the draft had.
    """

    reused_tokens: int
    trips: int
    forced_tokens: int
    drafted_tokens: int
    accepted_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""

    def cancel(self) -> None:
        """Stop the generation."""

    def __iter__(self) -> Iterator[Piece]: ...

    def __aiter__(self) -> AsyncIterator[Piece]: ...


CUT_SHORT = (
    "The token limit ended an answer before the model had finished it. The answer fits its schema or grammar, but a "
    "part of it is missing or was not written by the model. Raise max_tokens, or check finish_reason."
)
"""The warning about an answer that its grammar ended early."""
