"""Logits to a token, one row at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from langchain_petals.engine.decoding.logit_filters import LogitFilters
from langchain_petals.errors import InvalidRequestError
from langchain_petals.pieces import TokenLogprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.request import Sampling


class Sampler:
    """Chooses the tokens of one row; the row's companions in a batch have no influence on it.

    Args:
        sampling: The settings.
        prompt_length: Tokens of the prompt, from which `min_new_tokens` counts.
        end_tokens: Ids that end a generation.

    Raises:
        InvalidRequestError: A setting is out of range.
    """

    def __init__(self, sampling: Sampling, *, prompt_length: int, end_tokens: Sequence[int]) -> None:
        self._greedy = sampling.greedy
        self._generator = torch.Generator()
        self._filters = LogitFilters(sampling, prompt_length, end_tokens)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    @torch.inference_mode()
    def choose(
        self,
        ids: Sequence[int],
        logits: torch.Tensor,
        top: int | None = None,
        allowed: torch.Tensor | None = None,
    ) -> tuple[int, TokenLogprobs | None]:
        """Choose the next token.

        Args:
            ids: The row so far, prompt included.
            logits: The model's raw scores for the next token, shape (vocabulary,).
            top: How many of the likeliest tokens to report; None to report nothing.
            allowed: Which tokens may be chosen, shape (tokens of the tokenizer,); None for all. At least one of them is
                in the model's vocabulary. It counts before the settings do, so what those keep is never empty; where
                they would forbid all of it, it counts alone.

        Returns:
            The token, and how likely it was, in the distribution that it was chosen from.

        Raises:
            InvalidRequestError: A setting does not fit the vocabulary, or nothing may be chosen.
        """
        scores = logits.float()[None].clone()  # some filters write into it
        if allowed is not None:
            known = min(len(allowed), scores.shape[-1])
            scores[:, known:] = -math.inf
            scores[:, :known].masked_fill_(~allowed[:known], -math.inf)
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
            token = int(torch.multinomial(scores.softmax(-1), num_samples=1, generator=self._generator))
        return token, None if top is None else _logprobs(token, scores[0].log_softmax(-1), top)


def _logprobs(token: int, logprobs: torch.Tensor, top: int) -> TokenLogprobs:
    values, tokens = logprobs.topk(min(top, len(logprobs)))
    likeliest = zip(tokens.tolist(), values.tolist(), strict=True)
    possible = tuple((each, value) for each, value in likeliest if value > -math.inf)
    return TokenLogprobs(token, float(logprobs[token]), possible)
