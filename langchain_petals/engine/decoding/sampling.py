"""Chooses a token from logits with transformers' own logits processors, one row at a time."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from langchain_petals.errors import InvalidRequestError
from langchain_petals.pieces import TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_petals.engine.request import Sampling


# processors that read token ids; the others read only the scores, or the number of tokens
_READING_IDS = (RepetitionPenaltyLogitsProcessor, NoRepeatNGramLogitsProcessor, NoBadWordsLogitsProcessor)


class MinPWarper(LogitsProcessor):  # type: ignore[misc]
    """Drop tokens less likely than `min_p` times the likeliest one (Nguyen et al., 2024; in transformers from 4.39)."""

    def __init__(self, min_p: float) -> None:
        self.min_p = min_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002 - the interface
        """Mask `scores`, shape (rows, vocabulary)."""
        probabilities = scores.softmax(-1)
        too_rare = probabilities < self.min_p * probabilities.amax(-1, keepdim=True)
        return scores.masked_fill(too_rare, -math.inf)


class Sampler:
    """Chooses one row's tokens, independently of other rows; raises InvalidRequestError for a wrong setting."""

    def __init__(self, sampling: Sampling, *, prompt_length: int, end_tokens: Sequence[int]) -> None:
        self._greedy = sampling.greedy
        self._generator = torch.Generator()
        with _refusals():
            self._processors = _processors(sampling, prompt_length, list(end_tokens))
            self._reads_ids = any(isinstance(each, _READING_IDS) for each in self._processors)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed)

    @torch.inference_mode()
    def choose(
        self, ids: Sequence[int], logits: torch.Tensor, top: int | None = None, allowed: torch.Tensor | None = None
    ) -> tuple[int, TokenLogprobs | None]:
        """Choose the token after `ids`, the prompt included; report its and the `top` likeliest log-probabilities.

        `logits` have the shape (vocabulary,). `allowed` is a mask of the shape (tokens of the tokenizer,); at least one
        token that it allows must be in the model's vocabulary. It is applied before the other options. If these forbid
        all tokens that it allows, only the mask is applied.

        Raises:
            InvalidRequestError: An option does not fit the vocabulary, or no token may be chosen.
        """
        scores = logits.float()[None].clone()  # some processors write into it
        if allowed is not None:
            known = min(len(allowed), scores.shape[-1])
            scores[:, known:] = -math.inf
            scores[:, :known].masked_fill_(~allowed[:known], -math.inf)
        if self._processors:
            possible = scores if allowed is None else scores.clone()
            # without processors that read ids, a placeholder of equal length saves copying a long row
            row = torch.tensor([ids]) if self._reads_ids else torch.zeros(1, 1, dtype=torch.int64).expand(1, len(ids))
            with _refusals():
                scores = self._processors(row, scores)
            if scores.amax() == -math.inf:
                if allowed is None:
                    msg = "these sampling options leave no token to choose from; forbid or penalise fewer"
                    raise InvalidRequestError(msg)
                scores = possible
        if self._greedy:
            token = int(scores.argmax(-1))
        else:
            token = int(torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator))
        return token, None if top is None else _logprobs(token, scores[0].log_softmax(-1), top)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Raise InvalidRequestError when transformers or torch refuse an argument."""
    try:
        yield
    except (ValueError, IndexError) as error:
        msg = f"these sampling options cannot be used: {error}"
        raise InvalidRequestError(msg) from error


def _logprobs(token: int, logprobs: torch.Tensor, top: int) -> TokenLogprobs:
    values, tokens = logprobs.topk(min(top, len(logprobs)))
    likeliest = zip(tokens.tolist(), values.tolist(), strict=True)
    possible = tuple((each, value) for each, value in likeliest if value > -math.inf)
    return TokenLogprobs(token, float(logprobs[token]), possible)


def _processors(sampling: Sampling, prompt_length: int, end_tokens: list[int]) -> Any:  # noqa: C901 - a flat list
    """Build the list in the order in which `transformers.GenerationMixin` applies it."""
    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chosen.append(RepetitionPenaltyLogitsProcessor(penalty=sampling.repetition_penalty))
    if sampling.no_repeat_ngram_size:
        chosen.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    if sampling.bad_words_ids:
        chosen.append(NoBadWordsLogitsProcessor([list(ids) for ids in sampling.bad_words_ids], end_tokens))
    if sampling.min_new_tokens and end_tokens:
        chosen.append(MinNewTokensLengthLogitsProcessor(prompt_length, sampling.min_new_tokens, end_tokens))
    if sampling.greedy:
        return chosen
    if sampling.temperature != 1:
        chosen.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        chosen.append(TopKLogitsWarper(top_k=sampling.top_k))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(top_p=sampling.top_p))
    if sampling.min_p is not None:
        chosen.append(MinPWarper(sampling.min_p))
    if sampling.typical_p is not None and sampling.typical_p < 1:
        chosen.append(TypicalLogitsWarper(mass=sampling.typical_p))
    return chosen
