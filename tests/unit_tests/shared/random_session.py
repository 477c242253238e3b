"""A session with random logits, and answers of the token loop over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.decoding.loop import Row, decode
from langchain_petals.engine.generation import Generation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.request import Request
    from langchain_petals.pieces import Piece


class RandomSession:
    """A session of a model with random logits, which prefers some tokens strongly.

    Args:
        rows: How many rows it has.
        vocabulary: Size of the vocabulary.
        seed: Seed of the logits.
        reluctant: Tokens that it hardly ever chooses, for example the end token.
        said: Tokens with which each row begins its answer.
    """

    max_length = 100_000
    can_roll_back = False

    def __init__(
        self,
        rows: int,
        vocabulary: int,
        *,
        seed: int = 0,
        reluctant: Sequence[int] = (),
        said: Sequence[int] = (),
    ) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._habits = torch.randn(rows, vocabulary, generator=self._random) * 3
        self._habits[:, list(reluctant)] -= 30
        self._said = list(said)
        self.position = 0
        self._prompt: int | None = None

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        assert order is None
        assert last == 1
        self.position += ids.shape[1]
        self._prompt = self.position if self._prompt is None else self._prompt
        logits = self._habits + 2 * torch.randn(self._habits.shape, generator=self._random)
        number = self.position - self._prompt
        if number < len(self._said):
            logits[:, self._said[number]] += 1000
        return logits[:, None]

    def close(self) -> None:
        """Do nothing: no cache is held."""


def answering(
    tokenizer: Any, requests: Sequence[Request], grammars: Grammars | None = None, **session: Any
) -> list[Generation]:
    """Run requests in lockstep to their ends, and return their handles.

    Args:
        tokenizer: The model's tokenizer.
        requests: Requests with prompts of equal length.
        grammars: Compiled grammars to use.
        session: Arguments of `RandomSession`; `vocabulary` is the tokenizer's by default.
    """
    grammars = grammars or Grammars(tokenizer)
    ends = [tokenizer.eos_token_id]
    generations = [Generation(request) for request in requests]
    rows = []
    for each in generations:
        constraint = each.request.constraint
        guide = None if constraint is None else grammars.guide(constraint, [*ends, *each.request.end_tokens])
        rows.append(Row(each, tokenizer, ends, guide))
    decode(RandomSession(len(rows), session.pop("vocabulary", len(tokenizer)), **session), rows, 1024, lambda: None)
    return generations


def answered(tokenizer: Any, request: Request, grammars: Grammars | None = None, **session: Any) -> list[Piece]:
    """Run one request to its end, and return its pieces; see `answering`."""
    [generation] = answering(tokenizer, [request], grammars, **session)
    return list(generation)


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
