"""Beam search: of all continuations, the likeliest one that a search of limited width finds.

The algorithm and its formulas are those of `generate` in transformers from 4.49 on (`GenerationMixin._beam_search`),
so the tokens are the same. Older versions divide a text's score by a power of its whole length; newer ones leave the
prompt out of the length, and so does this search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.decoding.detokenizer import Detokenizer, StopMatcher
from langchain_petals.engine.decoding.logit_filters import LogitFilters
from langchain_petals.engine.decoding.sampling import generator_of
from langchain_petals.errors import InvalidRequestError, PromptTooLongError
from langchain_petals.pieces import FinishReason, Piece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.sessions import Session
    from langchain_petals.tokenizer import Tokenizer

# Added to the scores of beams that may not go on, as in transformers; sums of real log-probabilities are far above.
_NOTHING = -1e9
_DEAD = _NOTHING / 2
_MOST_DRAWN_FROM = 2**24  # torch.multinomial's limit
_MOST_PENALTY = 10  # beyond it, powers of a text's length soon leave the range of a float32


@dataclass(frozen=True)
class Preferences:
    """How finished texts compare with each other and with unfinished ones.

    Attributes:
        length_penalty: A finished text's log-probability is divided by its number of new tokens to this power. So
            values above 0 favour long texts, and values below 0 short ones.
        early_stopping: Whether the search ends as soon as there are as many finished texts as beams. If not, it ends
            when no unfinished text seems able to become better than they are. "never" makes the latter estimate
            cautious: it assumes the longest possible text where that scores best.
    """

    length_penalty: float = 1.0
    early_stopping: bool | str = False

    @classmethod
    def of(cls, generation_config: Mapping[str, Any]) -> Preferences:
        """Return those of a model's generation config; an invalid value counts as missing."""
        penalty: Any = generation_config.get("length_penalty")
        stopping: Any = generation_config.get("early_stopping")
        if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not abs(penalty) <= _MOST_PENALTY:
            penalty = cls.length_penalty
        if not isinstance(stopping, bool) and stopping != "never":
            stopping = cls.early_stopping
        return cls(float(penalty), stopping)


class Beams:
    """One request while its continuations are searched.

    Args:
        generation: Has the request, and gets one piece with the best text.
        tokenizer: Turns ids into text.
        end_tokens: Ids that end a generation, in addition to the request's.
        preferences: How texts compare.

    Raises:
        InvalidRequestError: A sampling option is out of range.
    """

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        end_tokens: Sequence[int],
        preferences: Preferences,
    ) -> None:
        self.generation, self._request = generation, generation.request
        self._tokenizer, self._preferences = tokenizer, preferences
        self._end_tokens = sorted({*end_tokens, *self._request.end_tokens})
        self._prompt = list(self._request.prompt_ids)
        self._budget = self._request.max_new_tokens
        self._kept = 1 + max(1, len(self._end_tokens))
        sampling = self._request.sampling
        self._filters = LogitFilters(sampling, len(self._prompt), self._end_tokens, least_kept=self._kept)
        self._random = None if sampling.greedy else generator_of(sampling)
        self._restart()

    def _restart(self) -> None:
        self._texts = [self._prompt] * self.number
        # the beams are equal before the first token, so all but the first have to lose
        self._scores = torch.tensor([0.0] + [_NOTHING] * (self.number - 1))
        self._finished: list[tuple[float, list[int]]] = []  # scores and texts, the best first
        self._is_over = False

    @property
    def done(self) -> bool:
        """Whether there is nothing more to search."""
        return self._is_over or self.generation.cancelled

    @property
    def number(self) -> int:
        """How many there are."""
        return self._request.num_beams

    @property
    def longest(self) -> int:
        """Most tokens that each can have, with the prompt."""
        return len(self._prompt) + self._budget

    def shorten(self, limit: int) -> None:
        """Begin anew, with at most `limit` tokens in each beam.

        Raises:
            PromptTooLongError: The prompt has that many.
        """
        self._budget = min(self._budget, limit - len(self._prompt))
        if self._budget < 1:
            raise PromptTooLongError(len(self._prompt), limit)
        self._restart()

    def search(self, session: Session, chunk_tokens: int) -> None:
        """Search to the end, and deliver the best text; when the generation is cancelled, end without one.

        A stop sequence cuts the text but does not end the search, since only the end of the search gives the text.

        Args:
            session: A new session with a row for each beam.
            chunk_tokens: Most tokens (rows times length) of one step; a longer prompt needs several steps.

        Raises:
            InvalidRequestError: The sampling options leave nothing to choose from, or there are too many beams to draw.
        """
        logits = self._read_prompt(session, max(1, chunk_tokens // self.number))
        while not self.done:
            order = self._advance(logits)
            if not self.done:
                newest = torch.tensor([text[-1:] for text in self._texts])
                logits = session.extend(newest, None if order == [*range(self.number)] else torch.tensor(order))[:, -1]
                self.generation.trips += 1
        if self._is_over:
            self._deliver()

    def _read_prompt(self, session: Session, chunk: int) -> torch.Tensor:
        logits = torch.empty(0)
        for start in range(0, len(self._prompt), chunk):
            if self.generation.cancelled:
                break
            logits = session.extend(torch.tensor([self._prompt[start : start + chunk]] * self.number))[:, -1]
            self.generation.trips += 1
            if self._request.on_prefill:
                self._request.on_prefill(session.position, len(self._prompt))
        return logits

    @torch.inference_mode()
    def _advance(self, logits: torch.Tensor) -> list[int]:
        """Add a token to each beam; return which beam each one continues.

        Args:
            logits: Shape (beams, vocabulary).
        """
        scores, origins, tokens = self._best_continuations(logits)
        if not scores.amax() > _DEAD:  # nor for NaN
            if not self._finished:
                msg = "these sampling options leave no token to choose from; forbid or penalise fewer"
                raise InvalidRequestError(msg)
            self._is_over = True
            return origins
        length = len(self._texts[0]) + 1 - len(self._prompt)
        ends = torch.tensor([length >= self._budget or token in self._end_tokens for token in tokens])
        texts = [[*self._texts[origin], token] for origin, token in zip(origins, tokens, strict=True)]

        # Only the best `number` of them may be finished texts; the others are there to go on with.
        final = (scores / length**self._preferences.length_penalty).tolist()
        is_finished = (ends & (scores > _DEAD)).tolist()
        more = [(final[i], texts[i]) for i in range(min(self.number, len(texts))) if is_finished[i]]
        self._finished = sorted(self._finished + more, key=lambda text: -text[0])[: self.number]

        self._scores, going_on = (scores + ends * _NOTHING).topk(self.number)
        self._texts = [texts[i] for i in going_on.tolist()]
        self._is_over = bool(ends.all()) or not self._may_improve(length)
        return [origins[i] for i in going_on.tolist()]

    def _best_continuations(self, logits: torch.Tensor) -> tuple[torch.Tensor, list[int], list[int]]:
        """Return the best continuations of all beams, or drawn ones, the best first.

        There are so many of them that enough remain to go on with when every beam ends with each of the end tokens.

        Returns:
            Their scores, the beams that they continue, and their last tokens.

        Raises:
            InvalidRequestError: There are too many continuations to draw from.
        """
        logprobs = logits.float().log_softmax(-1)
        if self._filters:
            rows = zip(self._texts, logprobs[:, None], strict=True)
            logprobs = torch.cat([self._filters(text, row) for text, row in rows])
        sums = (logprobs + self._scores[:, None]).flatten()
        number, vocabulary = min(self._kept * self.number, len(sums)), logits.shape[1]
        if self._random is None or sums.amax() <= _DEAD:
            scores, places = sums.topk(number)
        elif len(sums) > _MOST_DRAWN_FROM:
            msg = (
                f"{self.number} beams of a model with {vocabulary} tokens are too many to sample from; set num_beams "
                f"to at most {_MOST_DRAWN_FROM // vocabulary}, or do not sample"
            )
            raise InvalidRequestError(msg)
        else:
            drawn = torch.multinomial(sums.softmax(-1), number, generator=self._random)
            scores, order = sums[drawn].sort(descending=True)
            places = drawn[order]
        return scores, (places // vocabulary).tolist(), (places % vocabulary).tolist()

    def _may_improve(self, length: int) -> bool:
        """Return whether a beam of so many new tokens may become better than the worst of the finished texts."""
        if self._scores[0] <= _DEAD:
            return False
        if len(self._finished) < self.number:
            return True
        stopping, penalty = self._preferences.early_stopping, self._preferences.length_penalty
        if stopping is True:
            return False
        likeliest_length = self._budget if stopping == "never" and penalty > 0 else length
        return bool(self._scores[0] / likeliest_length**penalty > self._finished[-1][0])

    def _deliver(self) -> None:
        _, whole = self._finished[0]
        ids = whole[len(self._prompt) :]
        ended = ids[-1] in self._end_tokens
        detokenizer, stop = Detokenizer(self._tokenizer, self._prompt), StopMatcher(self._request.stop)
        text, stopped = stop.add("".join(map(detokenizer.add, ids[:-1] if ended else ids)) + detokenizer.flush())
        reason: FinishReason = "stop" if ended or stopped is not None else "length"
        self.generation.put(Piece(text + stop.flush(), len(ids), reason, tokens=tuple(ids)))
