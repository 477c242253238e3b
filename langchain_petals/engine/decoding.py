"""The token loop: rows of one session, stepped together, each with its own sampling, stops and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.generation import FinishReason, Generation, Piece
from langchain_petals.engine.sampling import Sampler
from langchain_petals.engine.text import Detokenizer, StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.session import Session

# Tokens of the prompt that decide how the first new token reads (a space in front of it or none).
_CONTEXT_TOKENS = 8


class Row:
    """One request while it runs.

    Args:
        generation: Where its pieces go.
        tokenizer: Turns ids into text.
        end_tokens: Ids that end a generation.
    """

    def __init__(self, generation: Generation, tokenizer: Any, end_tokens: Sequence[int]) -> None:
        request = generation.request
        self._generation, self._request = generation, request
        self._end_tokens = frozenset(end_tokens)
        self.ids = list(request.prompt_ids)
        self._sampler = Sampler(request.sampling, prompt_length=len(self.ids), end_tokens=end_tokens)
        self._text = Detokenizer(tokenizer, self.ids[-_CONTEXT_TOKENS:])
        self._stop = StopMatcher(request.stop)
        self._finished = False

    @property
    def done(self) -> bool:
        """Whether the row needs no further steps."""
        return self._finished or self._generation.cancelled

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt."""
        return len(self._request.prompt_ids)

    @property
    def longest(self) -> int:
        """Tokens of the row at the most."""
        return self.prompt_length + self._request.max_new_tokens

    def accept(self, logits: torch.Tensor) -> None:
        """Choose the next token from logits of shape (vocabulary,), and hand over what text it makes certain."""
        token = self._sampler.choose(self.ids, logits)
        self.ids.append(token)
        generated = len(self.ids) - self.prompt_length
        reason: FinishReason | None = None
        if token in self._end_tokens:
            text, stopped, reason = "", None, "stop"
        else:
            text, stopped = self._stop.add(self._text.add(token))
        if stopped is None and (reason is not None or generated == self._request.max_new_tokens):
            reason = reason or "length"
            rest, stopped = self._stop.add(self._text.flush())
            text += rest
            if stopped is None:
                text += self._stop.flush()
        if stopped is not None:
            reason = "stop"
        self._finished = reason is not None
        self._generation.put(Piece(text, generated, reason))

    def fail(self, error: BaseException) -> None:
        """End the row with an error, unless it is done."""
        if not self._finished:
            self._finished = True
            self._generation.put(error)


def decode(session: Session, rows: Sequence[Row]) -> None:
    """Run rows to their ends in lockstep.

    Servers take rectangular input only, and attention is causal. So the tokens up to the end of the shortest prompt
    are fed together, then one token a row at a time: the row's own prompt while it lasts, what was chosen after it.
    Each row gets exactly the tokens it would get alone. A row that is done is fed its last token until the others are
    done too; what comes back for it is not looked at.

    Args:
        session: A fresh session for as many rows.
        rows: At least one.
    """
    position = min(row.prompt_length for row in rows)
    step = torch.tensor([row.ids[:position] for row in rows])
    while not all(row.done for row in rows):
        logits = session.extend(step)
        for row, scores in zip(rows, logits, strict=True):
            if len(row.ids) == position and not row.done:
                try:
                    row.accept(scores)
                except Exception as error:  # noqa: BLE001 - it ends this row, and is raised where the row is awaited
                    row.fail(error)
        position += 1
        step = torch.tensor([[row.ids[min(position, len(row.ids)) - 1]] for row in rows])
