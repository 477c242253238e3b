"""What sampling options do to the logits of the next token, in the order and with the results of transformers.

Each filter takes scores of shape (1, vocabulary) and returns scores in which what may not be chosen is minus infinity.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_petals.engine.request import Sampling

    _OfScores = Callable[[torch.Tensor], torch.Tensor]
    _OfText = Callable[[Sequence[int], torch.Tensor], torch.Tensor]


class LogitFilters:
    """The filters that a request's options ask for; options that change nothing cost nothing.

    Args:
        sampling: The options.
        prompt_length: Tokens of the prompt, from which `min_new_tokens` counts.
        end_tokens: Ids that end a generation.
        least_kept: How many of the likeliest tokens remain at least after `top_k`, `top_p`, `min_p` and `typical_p`.

    Raises:
        InvalidRequestError: An option is out of range.
    """

    def __init__(
        self, sampling: Sampling, prompt_length: int, end_tokens: Sequence[int], *, least_kept: int = 1
    ) -> None:
        _check(sampling)
        self._of_text = [*_filters_of_text(sampling, prompt_length, end_tokens)]
        self._of_scores = [] if sampling.greedy else [*_filters_of_scores(sampling, least_kept)]

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._of_text or self._of_scores)

    def __call__(self, ids: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
        """Return filtered scores.

        Args:
            ids: The row so far, prompt included.
            scores: Scores of the next token, shape (1, vocabulary); may be written into.

        Raises:
            InvalidRequestError: `bad_words_ids` has a token that the model does not have.
        """
        for of_text in self._of_text:
            scores = of_text(ids, scores)
        for of_scores in self._of_scores:
            scores = of_scores(scores)
        return scores


def _filters_of_text(sampling: Sampling, prompt_length: int, end_tokens: Sequence[int]) -> Iterator[_OfText]:
    if sampling.repetition_penalty != 1:
        yield partial(penalise_repetition, sampling.repetition_penalty)
    if sampling.no_repeat_ngram_size:
        yield partial(forbid_repeated_ngrams, sampling.no_repeat_ngram_size)
    if sampling.bad_words_ids:
        words = [word for word in sampling.bad_words_ids if len(word) > 1 or word[0] not in end_tokens]
        yield partial(forbid_words, words)
    if sampling.min_new_tokens and end_tokens:
        yield partial(forbid_early_end, prompt_length + sampling.min_new_tokens, list(end_tokens))


def _filters_of_scores(sampling: Sampling, least: int) -> Iterator[_OfScores]:
    if sampling.temperature != 1:
        yield lambda scores: scores / sampling.temperature
    if sampling.top_k is not None:
        yield partial(keep_top_k, max(sampling.top_k, least))
    if sampling.top_p < 1:
        yield partial(keep_top_p, sampling.top_p, least=least)
    if sampling.min_p is not None:
        yield partial(keep_min_p, sampling.min_p, least=least)
    if sampling.typical_p is not None and sampling.typical_p < 1:
        yield partial(keep_typical, sampling.typical_p, least=least)


def _check(sampling: Sampling) -> None:
    for is_wrong, what in (
        (sampling.repetition_penalty <= 0, "repetition_penalty has to be above 0"),
        (sampling.no_repeat_ngram_size < 0, "no_repeat_ngram_size cannot be negative"),
        (not all(sampling.bad_words_ids), "bad_words_ids has an empty sequence"),
        (any(token < 0 for word in sampling.bad_words_ids for token in word), "bad_words_ids has a negative id"),
        (sampling.temperature <= 0 and not sampling.greedy, "temperature has to be above 0"),
        (sampling.top_k is not None and sampling.top_k < 1, "top_k has to be at least 1"),
        (not 0 <= sampling.top_p <= 1, "top_p has to be from 0 to 1"),
        (sampling.min_p is not None and not 0 < sampling.min_p <= 1, "min_p has to be above 0, at most 1"),
        (sampling.typical_p is not None and not 0 < sampling.typical_p <= 1, "typical_p has to be above 0, at most 1"),
        (sampling.min_new_tokens < 0, "min_new_tokens cannot be negative"),
        (sampling.seed is not None and not -(2**63) <= sampling.seed < 2**63, "seed has to fit 64 bits"),
    ):
        if is_wrong:
            msg = f"these sampling options cannot be used: {what}"
            raise InvalidRequestError(msg)


def penalise_repetition(penalty: float, ids: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
    """Make tokens that occurred less likely (Keskar et al., 2019)."""
    seen = torch.tensor([ids])
    found = scores.gather(1, seen)
    return scores.scatter(1, seen, torch.where(found < 0, found * penalty, found / penalty))


def forbid_repeated_ngrams(size: int, ids: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
    """Forbid tokens that would complete an n-gram of this size for the second time."""
    begun = list(ids[len(ids) - size + 1 :])
    if len(begun) == size - 1:
        ends = range(size - 1, len(ids))
        again = [ids[end] for end in ends if list(ids[end - size + 1 : end]) == begun]
        scores[:, again] = -math.inf
    return scores


def forbid_words(words: Sequence[Sequence[int]], ids: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
    """Forbid tokens that would complete one of these sequences.

    Raises:
        InvalidRequestError: The model has no such token.
    """
    unknown = [token for word in words for token in word if token >= scores.shape[-1]]
    if unknown:
        msg = f"bad_words_ids has tokens that the model, with {scores.shape[-1]} tokens, does not have: {unknown}"
        raise InvalidRequestError(msg)
    for *begun, last in words:
        if not begun or list(ids[-len(begun) :]) == begun:
            scores[:, last] = -math.inf
    return scores


def forbid_early_end(least: int, end_tokens: list[int], ids: Sequence[int], scores: torch.Tensor) -> torch.Tensor:
    """Forbid end tokens in a text of fewer than `least` tokens; an id that the model does not have changes nothing."""
    if len(ids) < least:
        scores[:, [token for token in end_tokens if 0 <= token < scores.shape[-1]]] = -math.inf
    return scores


def keep_top_k(number: int, scores: torch.Tensor) -> torch.Tensor:
    """Keep so many of the likeliest tokens, and what is as likely as the last of them."""
    least = scores.topk(min(number, scores.shape[-1])).values[..., -1:]
    return scores.masked_fill(scores < least, -math.inf)


def keep_top_p(share: float, scores: torch.Tensor, *, least: int = 1) -> torch.Tensor:
    """Keep the fewest tokens whose probabilities add up to a share (Holtzman et al., 2020)."""
    ascending, order = scores.sort()
    dropped = ascending.softmax(-1).cumsum(-1) <= 1 - share
    dropped[..., -least:] = False
    return scores.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)


def keep_min_p(fraction: float, scores: torch.Tensor, *, least: int = 1) -> torch.Tensor:
    """Keep tokens at least this fraction as likely as the likeliest one (Nguyen et al., 2024)."""
    probabilities = scores.softmax(-1)
    dropped = probabilities < fraction * probabilities.amax(-1, keepdim=True)
    likeliest = probabilities.topk(min(least, scores.shape[-1])).indices
    return scores.masked_fill(dropped.scatter(-1, likeliest, value=False), -math.inf)


def keep_typical(share: float, scores: torch.Tensor, *, least: int = 1) -> torch.Tensor:
    """Keep the tokens whose information is nearest to the entropy, up to a share (Meister et al., 2022)."""
    logprobs = scores.log_softmax(-1)
    entropy = -(logprobs * logprobs.exp()).nansum(-1, keepdim=True)
    distance, order = (-logprobs - entropy).abs().sort()
    reached = (scores.gather(-1, order).softmax(-1).cumsum(-1) < share).sum(-1, keepdim=True)
    dropped = distance > distance.gather(-1, reached.clamp(max=distance.shape[-1] - 1))
    dropped[..., :least] = False
    return scores.masked_fill(dropped.scatter(-1, order, dropped), -math.inf)
