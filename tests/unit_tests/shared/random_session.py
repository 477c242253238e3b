"""A session with random logits, and answers of the token loop over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.decoding import Row, decode
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
        prompts: Tokens of each row's prompt; one by default.
        seed: Seed of the logits, which depend on the position only.
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
        prompts: Sequence[int] = (),
        seed: int = 0,
        reluctant: Sequence[int] = (),
        said: Sequence[int] = (),
    ) -> None:
        self._seed, self._prompts = seed, prompts or [1] * rows
        self._habits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
        self._habits[:, list(reluctant)] -= 30
        self._said = list(said)
        self.position = 0

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        assert order is None, "rows keep their order"
        self.position += ids.shape[1]
        return torch.stack([self._logits(self.position - last + 1 + index) for index in range(last)], dim=1)

    def _logits(self, position: int) -> torch.Tensor:
        random = torch.Generator().manual_seed(1_000 * self._seed + position)
        logits = self._habits + 2 * torch.randn(self._habits.shape, generator=random)
        for row, prompt in enumerate(self._prompts):
            if 0 <= position - prompt < len(self._said):
                logits[row, self._said[position - prompt]] += 1000
        return logits

    def close(self) -> None:
        """Do nothing: no cache is held."""


def answering(
    tokenizer: Any,
    requests: Sequence[Request],
    grammars: Grammars | None = None,
    *,
    runs_ahead: bool = True,
    **session: Any,
) -> list[Generation]:
    """Run requests in lockstep to their ends, and return their handles.

    Args:
        tokenizer: The model's tokenizer.
        requests: The requests.
        grammars: Compiled grammars to use.
        runs_ahead: Whether tokens that a grammar forces are taken without a step.
        session: Arguments of `RandomSession`; `vocabulary` is the tokenizer's by default.
    """
    grammars = grammars or Grammars(tokenizer)
    ends = [tokenizer.eos_token_id]
    vocabulary = session.pop("vocabulary", len(tokenizer))
    generations = [Generation(request) for request in requests]
    rows = []
    for each in generations:
        constraint = each.request.constraint
        guide = None if constraint is None else grammars.guide(constraint, [*ends, *each.request.end_tokens])
        rows.append(Row(each, tokenizer, ends, guide, vocabulary=vocabulary, runs_ahead=runs_ahead))
    for row in rows:
        row.run_ahead()
        row.deliver()
    prompts = [row.prompt_length for row in rows]
    decode(RandomSession(len(rows), vocabulary, prompts=prompts, **session), rows, 1024, lambda: None)
    return generations


def answered(tokenizer: Any, request: Request, grammars: Grammars | None = None, **session: Any) -> list[Piece]:
    """Run one request to its end, and return its pieces; see `answering`."""
    [generation] = answering(tokenizer, [request], grammars, **session)
    return list(generation)


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
