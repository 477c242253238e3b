"""What generations bring, piece by piece: the words that the engine shares with whoever makes answers of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLogprobs:
    """How likely a token was, after everything that shapes the distribution it was chosen from.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability.
        top: Ids and log-probabilities of the likeliest tokens, likeliest first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Piece:
    """What one step of the token loop brought for one row.

    Attributes:
        text: Text that is now certain; may be empty (half a character, the beginning of a stop sequence).
        generated: Tokens generated so far, an end token included.
        logprobs: How likely the step's token was, when that was asked for.
        tokens: What was generated in this step, an end token included; one token, but for a beam search's one piece.
        cut: Whether the budget, and not the model, chose a token, here or before: what the model wanted could not have
            been ended in time.
        finish_reason: On the last piece "stop" (end token or stop sequence) or "length" (out of budget, also where a
            grammar made the answer end in time, other than the model would have); else None.
    """

    text: str
    generated: int
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    tokens: tuple[int, ...] = ()
    cut: bool = False


class Pieces(Protocol):
    """One answer on its way: its pieces, iterable once, also asynchronously.

    Attributes:
        reused_tokens: Tokens of the prompt that an idle session held already; known from the first piece on.
    """

    reused_tokens: int

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""

    def cancel(self) -> None:
        """Stop the work on it."""

    def __iter__(self) -> Iterator[Piece]: ...

    def __aiter__(self) -> AsyncIterator[Piece]: ...


CUT_SHORT = (
    "The token limit ended an answer before the model came to its end: it fits its form, but a part of it is cut off "
    "or made up. Raise max_tokens, or look at finish_reason."
)
"""What a user has to know of an answer of a given form that was ended early."""
