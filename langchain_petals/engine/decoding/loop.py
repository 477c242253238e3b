"""The token loop: the rows of a session in lockstep, each with its own sampling, stop sequences and limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from langchain_petals.engine.decoding.detokenizer import Detokenizer, StopMatcher
from langchain_petals.engine.decoding.sampling import Sampler
from langchain_petals.errors import OutputLimitError, PromptTooLongError
from langchain_petals.pieces import FinishReason, Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.engine.constraints import Guide
    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.sessions import Session
    from langchain_petals.tokenizer import Tokenizer


class Row:
    """One request while it runs.

    Args:
        generation: Has the request, and gets the pieces.
        tokenizer: Turns ids into text.
        end_tokens: Ids that end a generation, in addition to the request's.
        guide: Applies the request's constraint; None without one.
    """

    def __init__(
        self, generation: Generation, tokenizer: Tokenizer, end_tokens: Sequence[int], guide: Guide | None = None
    ) -> None:
        request = generation.request
        end_tokens = (*end_tokens, *request.end_tokens)
        self.generation, self._request = generation, request
        self._tokenizer, self._guide = tokenizer, guide
        self._budget = request.max_new_tokens
        self._end_tokens = frozenset(end_tokens)
        self.ids = list(request.prompt_ids)
        self.prompt_length = len(self.ids)
        self._sampler = Sampler(request.sampling, prompt_length=self.prompt_length, end_tokens=end_tokens)
        self._text = Detokenizer(tokenizer, self.ids)
        self._stop = StopMatcher(request.stop, () if guide is None else guide.markers)
        self._finished = False
        self._pending: Piece | None = None

    @property
    def done(self) -> bool:
        """Whether the row needs no further steps."""
        return self._finished or self.generation.cancelled

    @property
    def _generated(self) -> int:
        return len(self.ids) - self.prompt_length

    @property
    def longest(self) -> int:
        """Most tokens that the row can have, with the prompt."""
        return self.prompt_length + self._budget

    def shorten(self, limit: int) -> None:
        """Lower the row's maximum number of tokens to `limit`; end the row if it has that many already."""
        self._budget = min(self._budget, limit - self.prompt_length)
        if self._budget < 1:
            self.fail(PromptTooLongError(self.prompt_length, limit))
        elif self._generated >= self._budget and self._guide is not None and not self._guide.complete:
            self.fail(self._cut_short(self._guide))
        elif self._generated >= self._budget:
            text, reason = self._ended("", None, "length")
            self.generation.put(Piece(text, self._generated, reason))

    def tokens(self, start: int, end: int) -> list[int]:
        """Return the tokens at these positions; after the end of a row, its last token."""
        return self.ids[start:end] or self.ids[-1:]

    def see(self, position: int, logits: torch.Tensor) -> None:
        """Take the logits for the token at `position`; ignore them unless this is the row's next token."""
        if self.done or position > len(self.ids):
            return
        try:
            if self._request.on_prefill and position <= self.prompt_length == len(self.ids):
                self._request.on_prefill(position, self.prompt_length)
            if position == len(self.ids):
                self.accept(logits)
        except Exception as error:  # noqa: BLE001 - it ends this row, and is raised to the caller that awaits it
            self.fail(error)

    def accept(self, logits: torch.Tensor) -> None:
        """Choose the next token from logits, shape (vocabulary,), and prepare the piece that it adds."""
        guide, top = self._guide, self._request.top_logprobs
        if guide is None:
            token, logprobs = self._sampler.choose(self.ids, logits, top)
        else:
            left = self._budget - self._generated
            token, logprobs = guide.choose(partial(self._sampler.choose, self.ids, logits, top), left)
        self.ids.append(token)
        reason: FinishReason | None = "length" if self._generated >= self._budget else None
        if token in self._end_tokens if guide is None else guide.ended:
            text, reason = self._ended("", None, "stop")
            if guide is not None:
                text = text.removesuffix(guide.unfinished)
        elif guide is None or not guide.holds:
            text, reason = self._ended(*self._stop.add(self._text.add(token)), reason)
        elif reason is not None and not guide.complete:
            raise self._cut_short(guide)
        else:  # in a grammar's text, stop sequences do not apply, and special tokens may be visible
            special = guide.visible.get(token)
            text = self._text.add(token) if special is None else self._text.flush() + special
            text, reason = self._ended(self._stop.flush() + text, None, "stop" if guide.finished else reason)
        cut = guide is not None and guide.cut
        if reason == "stop" and cut:
            reason = "length"
        self._pending = Piece(text, self._generated, reason, logprobs, tokens=(token,), cut=cut)

    def _cut_short(self, guide: Guide) -> OutputLimitError:
        generated = self._tokenizer.decode(
            self.ids[self.prompt_length :], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return OutputLimitError(self._budget, generated=generated, steered=guide.steered)

    def _ended(self, text: str, stopped: str | None, reason: FinishReason | None) -> tuple[str, FinishReason | None]:
        """Return the step's text and finish reason; if the row ends, the text includes what was held back."""
        if stopped is None and reason is not None:
            rest, stopped = self._stop.add(self._text.flush())
            text += rest
            if stopped is None:
                text += self._stop.flush()
        if stopped is not None:
            reason = "stop"
        self._finished = reason is not None
        return text, reason

    def deliver(self) -> None:
        """Deliver the piece of the last step, if there is one."""
        piece, self._pending = self._pending, None
        if piece is not None:
            self.generation.put(piece)

    def fail(self, error: BaseException) -> None:
        """Deliver the piece of the last step, then end the row with an error unless it has ended."""
        self.deliver()
        if not self._finished:
            self._finished = True
            self.generation.put(error)


def decode(session: Session, rows: Sequence[Row], chunk_tokens: int, before_last: Callable[[], None]) -> None:
    """Run rows to their ends in lockstep.

    Servers take only rectangular input. So all rows are fed up to the end of the shortest prompt, then one token per
    row and step: the next token of the row's prompt, or the chosen one. Attention is causal, so each row gets exactly
    the tokens that it would get alone. A finished row is fed its last token until all rows are done; its logits are
    ignored.

    Args:
        session: A session with one row for each of `rows`; new, or with tokens at the beginning of the prompts.
        rows: At least one.
        chunk_tokens: Most tokens (rows times length) of one step; a longer prompt needs several steps.
        before_last: Called before the final piece is delivered. It may park the session, so that the caller's next
            request finds it.
    """
    shortest = min(row.prompt_length for row in rows)
    chunk = max(1, chunk_tokens // len(rows))
    position = session.position
    for row in rows:
        row.generation.reused_tokens = position
    while not all(row.done for row in rows):
        end = min(position + chunk, shortest) if position < shortest else position + 1
        logits = session.extend(torch.tensor([row.tokens(position, end) for row in rows]))[:, -1]
        position = end
        for row, scores in zip(rows, logits, strict=True):
            row.see(position, scores)
        if all(row.done for row in rows):
            before_last()
        for row in rows:
            row.deliver()
