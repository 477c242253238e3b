"""A row of the token loop: one request, with its own sampling, grammar, stop sequences and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_petals.engine.decoding.detokenizer import Detokenizer, StopMatcher
from langchain_petals.engine.decoding.sampling import Sampler
from langchain_petals.errors import OutputLimitError, PromptTooLongError
from langchain_petals.pieces import FinishReason, Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from langchain_petals.engine.constraints import Choosing, Guide, Mask
    from langchain_petals.engine.generation import Generation
    from langchain_petals.pieces import TokenLogprobs
    from langchain_petals.tokenizer import Tokenizer


class Row:
    """One request while it runs.

    Args:
        generation: Has the request, and gets the pieces.
        tokenizer: Turns ids into text.
        end_tokens: Ids that end a generation, in addition to the request's.
        guide: Applies the request's constraint; None without one.
        vocabulary: Number of the model's logits. If it is None, no token is taken before the first logits come.
        runs_ahead: Whether to take tokens without logits where the constraint allows only one.

    Attributes:
        ids: The prompt, and the tokens that were chosen so far.
        prompt_length: Tokens of the prompt.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        end_tokens: Sequence[int],
        guide: Guide | None = None,
        *,
        vocabulary: int | None = None,
        runs_ahead: bool = True,
    ) -> None:
        request = generation.request
        self.generation, self._request = generation, request
        self._tokenizer, self._guide = tokenizer, guide
        self._vocabulary, self._runs_ahead = vocabulary, runs_ahead and guide is not None
        self._budget = request.max_new_tokens
        self._end_tokens = (*end_tokens, *request.end_tokens)
        self.prompt_length = len(request.prompt_ids)
        self._begin()

    def _begin(self) -> None:
        """Begin after the prompt."""
        request, guide = self._request, self._guide
        self.ids = list(request.prompt_ids)
        self._sampler = Sampler(
            request.sampling,
            prompt_length=self.prompt_length,
            end_tokens=self._end_tokens,
            vocabulary=self._vocabulary,
        )
        self._text = Detokenizer(self._tokenizer, self.ids)
        self._stop = StopMatcher(request.stop, () if guide is None else guide.markers)
        self._finished = self._prefilled = False
        self._pending: list[Piece] = []
        self._choosing: Choosing | None = None  # the next token's choice, which waits for logits
        self._mask: Mask | None = None  # what it allows
        self.generation.forced_tokens = 0

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
        if self.done:
            return
        self._budget = min(self._budget, limit - self.prompt_length)
        self._choosing = None  # it was begun for a larger budget
        if self._guide is not None and not self._prefilled:  # so was the rest, and nothing of it has been delivered
            self._guide = self._guide.fresh()
            self._begin()
        if self._budget < 1:
            self.fail(PromptTooLongError(self.prompt_length, limit))
        elif self._generated >= self._budget and self._guide is not None and not self._guide.complete:
            self.fail(self._cut_short(self._guide))
        elif self._generated >= self._budget:
            text, reason = self._ended("", None, "length")
            self.generation.put(Piece(text, self._generated, reason))

    def follow(self, guess: Sequence[int], most: int) -> tuple[list[int], int]:
        """Return as much of a guess as may come next, with the tokens that its grammar then forces, and their number.

        Args:
            guess: Tokens that may come next.
            most: Most tokens to return.
        """
        if self._guide is None:
            ends = (number for number, token in enumerate(guess) if token in self._end_tokens)
            return list(guess[: min(most, next(ends, most))]), 0
        return self._guide.foresee(guess, most, self._vocabulary or 0)

    def tokens(self, start: int, end: int) -> list[int]:
        """Return the tokens at these positions; after the end of a row, its last token."""
        ids = self.ids[start:end]
        return ids + self.ids[-1:] * (end - start - len(ids))

    def run_ahead(self) -> None:
        """Take the tokens that do not depend on the model; an answer may be complete without a step.

        Their pieces are delivered after the step that has fed the whole prompt, or, if the row ends here, at once.
        """
        try:
            self._take_forced()
        except Exception as error:  # noqa: BLE001 - it ends this row, and is raised to the caller that awaits it
            self._prefilled = True  # the pieces before the error are part of the result
            self.fail(error)

    def see(self, position: int, logits: torch.Tensor) -> None:
        """Take the logits for the token at `position`; ignore them unless this is the row's next token."""
        if self.done or position > len(self.ids):
            return
        try:
            if not self._prefilled:
                if self._request.on_prefill:
                    self._request.on_prefill(min(position, self.prompt_length), self.prompt_length)
                self._prefilled = position >= self.prompt_length
            if position == len(self.ids):
                self._take(logits)
                self._take_forced()
        except Exception as error:  # noqa: BLE001 - it ends this row, and is raised to the caller that awaits it
            self.fail(error)

    def _take_forced(self) -> None:
        while self._runs_ahead and not self.done and self._take(None):
            self.generation.forced_tokens += 1

    def _take(self, logits: torch.Tensor | None) -> bool:
        """Take the next token, and prepare the piece that it adds.

        Args:
            logits: Shape (vocabulary,). Without them, a token is taken only if no other is possible.

        Returns:
            Whether a token was taken.
        """
        top, logprobs = self._request.top_logprobs, None
        if self._guide is None:
            if logits is not None:
                self._add(*self._sampler.choose(self.ids, logits, top))
            return logits is not None
        try:
            if self._choosing is None:
                self._choosing = self._guide.choose(self._budget - self._generated)
                self._mask = next(self._choosing)
            while True:
                if logits is not None:
                    token, logprobs = self._sampler.choose(self.ids, logits, top, self._mask)
                elif (only := self._sampler.take_only(self._mask, top)) is not None:
                    token, logprobs = only
                else:
                    return False
                self._mask = self._choosing.send(token)
        except StopIteration as taken:
            self._choosing = None
            self._add(taken.value, logprobs)
            return True

    def _add(self, token: int, logprobs: TokenLogprobs | None) -> None:
        """Add a token, and prepare its piece."""
        guide = self._guide
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
        self._pending.append(Piece(text, self._generated, reason, logprobs, tokens=(token,), cut=cut))

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
        """Deliver the pieces of the tokens that were taken, unless the swarm has yet to answer for the prompt."""
        if self._prefilled or self._finished:
            pieces, self._pending = self._pending, []
            for piece in pieces:
                self.generation.put(piece)

    def fail(self, error: BaseException) -> None:
        """Deliver what was confirmed, then end the row with an error unless it has ended."""
        self.deliver()
        if not self._finished:
            self._finished = True
            self._pending = []
            self.generation.put(error)
