"""Chooses a token from logits, one row at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from langchain_petals.engine.decoding.logit_filters import LogitFilters
from langchain_petals.errors import InvalidRequestError
from langchain_petals.pieces import TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from langchain_petals.engine.request import Sampling


class Sampler:
    """Chooses one row's tokens, independently of other rows; raises InvalidRequestError for a wrong setting.

    Args:
        sampling: The options.
        prompt_length: Tokens of the prompt.
        end_tokens: Ids that end a generation.
        vocabulary: Number of logits, if it is known before there are any.
    """

    def __init__(
        self, sampling: Sampling, *, prompt_length: int, end_tokens: Sequence[int], vocabulary: int | None = None
    ) -> None:
        self._greedy = sampling.greedy
        self._filters = LogitFilters(sampling, prompt_length, end_tokens)
        self._generator = generator_of(sampling)
        self._vocabulary = vocabulary
        self._counts_draws = sampling.seed is not None and not sampling.greedy
        self._undrawn = 0  # tokens that were taken without their draw
        self._most_named = max((token for word in sampling.bad_words_ids for token in word), default=-1)

    def take_only(
        self, allowed: NDArray[np.bool_] | None, top: int | None = None
    ) -> tuple[int, TokenLogprobs | None] | None:
        """Take the token that `choose` would choose with any logits; None if it depends on them, or on their number.

        The arguments and the result are those of `choose`.
        """
        vocabulary = self._vocabulary
        if allowed is None or vocabulary is None or self._most_named >= vocabulary:  # `choose` refuses such a token
            return None
        known = allowed[:vocabulary]
        if np.count_nonzero(known) != 1:
            return None
        self._undrawn += self._counts_draws
        token = int(known.argmax())
        return token, None if top is None else TokenLogprobs(token, 0.0, ((token, 0.0),)[:top])

    def _catch_up(self, vocabulary: int) -> None:
        """Draw once for each token of `take_only`, so that a seed gives the same draws for the tokens after it."""
        if self._undrawn:
            weights = torch.ones(1, vocabulary)
            for _ in range(self._undrawn):
                torch.multinomial(weights, num_samples=1, generator=self._generator)
            self._undrawn = 0

    @torch.inference_mode()
    def choose(
        self,
        ids: Sequence[int],
        logits: torch.Tensor,
        top: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[int, TokenLogprobs | None]:
        """Choose the token after `ids`, the prompt included; report its and the `top` likeliest log-probabilities.

        `logits` have the shape (vocabulary,). `allowed` is a mask of the shape (tokens of the tokenizer,); at least one
        token that it allows must be in the model's vocabulary. It is applied before the other options. If these forbid
        all tokens that it allows, only the mask is applied.

        Raises:
            InvalidRequestError: A setting does not fit the vocabulary, or nothing may be chosen.
        """
        scores = logits.float()[None].clone()  # some filters write into it
        self._vocabulary = scores.shape[-1]
        if allowed is not None:
            known = min(len(allowed), scores.shape[-1])
            scores[:, known:] = -math.inf
            scores[:, :known].masked_fill_(torch.from_numpy(~allowed[:known]), -math.inf)
        if self._filters:
            possible = scores if allowed is None else scores.clone()
            scores = self._filters(ids, scores)
            if scores.amax() == -math.inf:
                if allowed is None:
                    msg = "these sampling options leave no token to choose from; forbid or penalise fewer"
                    raise InvalidRequestError(msg)
                scores = possible
        if self._greedy:
            token = int(scores.argmax(-1))
        else:
            self._catch_up(scores.shape[-1])
            token = int(torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator))
        return token, None if top is None else _logprobs(token, scores[0].log_softmax(-1), top)


def generator_of(sampling: Sampling) -> torch.Generator:
    """Return the source of a request's random numbers, which nothing else uses."""
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    return generator


def _logprobs(token: int, logprobs: torch.Tensor, top: int) -> TokenLogprobs:
    values, tokens = logprobs.topk(min(top, len(logprobs)))
    likeliest = zip(tokens.tolist(), values.tolist(), strict=True)
    possible = tuple((each, value) for each, value in likeliest if value > -math.inf)
    return TokenLogprobs(token, float(logprobs[token]), possible)
