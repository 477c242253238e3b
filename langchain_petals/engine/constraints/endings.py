"""Endings: how a text of a grammar can be completed.

A parser tells which bytes may come next, but not how far the end is. `quick_ending` repeatedly takes the byte that is
most likely to close something. `shortest_ending` compares alternatives, with a bounded effort. Both use a matcher whose
vocabulary is an *alphabet*: single bytes and special tokens. So a step takes microseconds, however large the model's
vocabulary is. Inside a regular expression, the allowed bytes do not show which of them lead to its end. For this case
the alphabet has hints, made from the expressions (see `patterns`).
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from llguidance import LLMatcher

# Bytes that close something come first; bytes that need more text after them come last. A comma comes before digits,
# which could continue for ever.
_PREFERENCE = b"}])\"'>,;:0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LAST = b"{[(\\"

# If more than `_MANY` bytes are allowed, the text is most likely in a string, which a quote would end, and a search
# tries one byte of each kind.
_KINDS = (range(0x31, 0x3A), range(0x61, 0x7B), range(0x41, 0x5B), range(0x80, 0xC0), range(0xC2, 0xF5), range(0x20))
_MANY = 16

# If a string may not end yet, repeated fillers are tried in front of its quote.
_FILLERS, _LENGTHS = b"0aA", (1, 2, 3, 4, 6, 8)

# A search tries `_PARTS` of the hints for parts. After `_EAGER` single bytes, only every `_SELDOM`th tries hints.
_PARTS, _EAGER, _SELDOM = 8, 16, 16

# If `quick_ending` has found nothing, alternatives are followed for this many bytes only: most have no ending.
_DOUBTFUL = 1024

# A search continues from `_EFFORT` states in all, and from `_ALIKE` states of equal length with the same choices.
_EFFORT, _ALIKE = 400, 3

# How llguidance writes a special token among forced bytes.
_SPECIAL = re.compile(rb"\xff\[(\d+)\]")


class Alphabet:
    """The ids of single bytes and special tokens, among `vocabulary` ids, and hints in them; see `Hints`."""

    def __init__(self, byte_ids: Mapping[int, int], special_ids: Iterable[int], vocabulary: int, end: int) -> None:
        ranks = {byte: rank for rank, byte in enumerate(_PREFERENCE)} | {byte: 1000 + byte for byte in _LAST}
        order = sorted(byte_ids, key=lambda byte: ranks.get(byte, 500 + byte))
        self.byte_ids = byte_ids
        self._ids = np.array([byte_ids[byte] for byte in order] + sorted(special_ids), dtype=np.int64)
        kinds = {byte: kind for kind, members in enumerate(_KINDS) for byte in members}
        self._quote = byte_ids[ord('"')]
        self._words = {token for byte, token in byte_ids.items() if bytes([byte]).isalnum()}
        self._filled = [[byte_ids[filler]] * length + [self._quote] for length in _LENGTHS for filler in _FILLERS]
        self._kinds = {byte_ids[byte]: kinds.get(byte, -1 - byte) for byte in order}
        self._mask_words = (vocabulary + 31) // 32
        self._end = end
        self.strings: list[list[int]] = []
        self.texts: list[list[int]] = []
        self.parts: list[list[int]] = []

    def symbols(self, data: bytes) -> list[int]:
        """Return the ids of these bytes; raise KeyError for a byte that occurs in no text."""
        return [self.byte_ids[byte] for byte in data]

    def allowed(self, matcher: LLMatcher) -> list[int]:
        """Return the ids that may come next, the most promising first."""
        mask = np.zeros(self._mask_words, dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        octets = mask.view(np.uint8)
        ids: list[int] = self._ids[(octets[self._ids >> 3] >> (self._ids & 7)) & 1 == 1].tolist()
        return ids

    def _closing(self, matcher: LLMatcher, allowed: Sequence[int], *, hinted: bool = True) -> list[int] | None:
        """Return a short ending of the string or the expression that the text may be in; None if there is none."""
        for each in self._fitting(self.texts if hinted else (), matcher, allowed):
            if matcher.validate_tokens([*each, self._end]) > len(each):
                return each
        if self._quote in allowed:
            return [self._quote] if len(allowed) > _MANY else None
        tried = (self.strings if hinted else []) + (self._filled if len(allowed) > _MANY else [])
        return next(self._fitting(tried, matcher, allowed), None)

    @staticmethod
    def _fitting(hints: Sequence[list[int]], matcher: LLMatcher, allowed: Sequence[int]) -> Iterator[list[int]]:
        begins = set(allowed if hints else ())
        return (each for each in hints if each[0] in begins and matcher.validate_tokens(each) == len(each))

    def step(self, matcher: LLMatcher, *, hinted: bool = True) -> list[int]:
        """Return the ids that most likely lead to an end; none if nothing is allowed."""
        allowed = self.allowed(matcher)
        closing = self._closing(matcher, allowed, hinted=hinted)
        if closing is not None:
            return closing
        if 1 < len(allowed) <= _MANY and allowed[0] in self._words:
            # In a number or word that may not end here, try which byte ends it; a multiple of 4 needs certain digits.
            more = [each for each in allowed if each in self._words]
            return next(([each] for each in more if self._closes(matcher, each)), allowed[:1])
        return allowed[:1]

    def _closes(self, matcher: LLMatcher, symbol: int) -> bool:
        taken = matcher.try_consume_tokens([symbol])
        closes = taken == 1 and (matcher.is_accepting() or not self._words.issuperset(self.allowed(matcher)[:1]))
        matcher.rollback(taken)
        return closes

    def choices(self, matcher: LLMatcher) -> list[list[int]]:
        """Return a few alternatives that represent all that may come next."""
        allowed = self.allowed(matcher)
        closing = self._closing(matcher, allowed)
        steps = [] if closing is None else [closing]
        if closing in (None, [self._quote]):
            steps += itertools.islice(self._fitting(self.parts, matcher, allowed), _PARTS)
        if len(allowed) > _MANY:
            first: dict[int, int] = {}
            for each in allowed:
                first.setdefault(self._kinds.get(each, each), each)
            allowed = list(first.values())
        return [*steps, *([each] for each in allowed)]

    def forced(self, matcher: LLMatcher) -> list[int]:
        """Return the ids that the grammar forces next, up to a special token or a byte that occurs in no text."""
        data = matcher.compute_ff_bytes()
        if found := _SPECIAL.match(data):
            return [int(found[1])]
        return [self.byte_ids[byte] for byte in itertools.takewhile(self.byte_ids.__contains__, data)]


def quick_ending(alphabet: Alphabet, matcher: LLMatcher, most: int) -> list[int] | None:
    """Return an ending of at most `most` ids, not always the shortest; None if none was found."""
    ending: list[int] = []
    taken = alone = 0  # `alone`: steps of a single id in a row
    try:
        while not matcher.is_accepting():
            hinted = alone < _EAGER or alone % _SELDOM == 0
            step = alphabet.forced(matcher) or alphabet.step(matcher, hinted=hinted)
            ending += step
            alone = 0 if len(step) > 1 else alone + 1
            if not step or len(ending) > most:
                return None
            taken += matcher.try_consume_tokens(step)
            if taken < len(ending):
                return None
        return ending
    finally:
        matcher.rollback(taken)


def shortest_ending(alphabet: Alphabet, matcher: LLMatcher, most: int) -> list[int] | None:
    """Return the shortest ending of at most `most` ids that a bounded search finds.

    At each choice, `quick_ending` completes each alternative, and the shortest one is taken. If it can complete none,
    texts are tried in the order of their lengths.
    """
    ending = _best_by_trying(alphabet, matcher.deep_copy(), most)
    return _nearest(alphabet, matcher, most) if ending is None else ending


def _best_by_trying(alphabet: Alphabet, matcher: LLMatcher, most: int) -> list[int] | None:
    ending: list[int] = []
    best = quick_ending(alphabet, matcher, most)  # after `ending`
    effort = _EFFORT
    while effort > 0 and not matcher.is_accepting():
        step = alphabet.forced(matcher)
        if not step:
            for choice in alphabet.choices(matcher):
                effort -= 1
                left = (min(most, _DOUBTFUL) if best is None else len(best) - 1) - len(choice)
                tried = matcher.deep_copy()
                if left >= 0 and tried.try_consume_tokens(choice) == len(choice):
                    rest = quick_ending(alphabet, tried, left)
                    best = best if rest is None else [*choice, *rest]
            if best is None:
                return None
            step = best[:1]
        matcher.consume_tokens(step)
        ending += step
        best = None if best is None else best[len(step) :]
    return None if best is None else ending + best


def _nearest(alphabet: Alphabet, matcher: LLMatcher, most: int) -> list[int] | None:
    numbers = itertools.count()  # they settle ties
    texts: list[tuple[int, int, list[int], LLMatcher]] = [(0, next(numbers), [], matcher)]
    seen: Counter[str] = Counter()
    effort = _EFFORT
    while texts and effort:
        length, _, text, matcher = heapq.heappop(texts)
        if matcher.is_accepting():
            return text
        steps = [alphabet.forced(matcher)]
        if not steps[0]:
            steps = alphabet.choices(matcher)
            key = f"{length} {steps}"
            seen[key] += 1
            if seen[key] > _ALIKE:
                continue
        effort -= 1
        for step in steps:
            following = matcher.deep_copy()
            if length + len(step) <= most and following.try_consume_tokens(step) == len(step):
                heapq.heappush(texts, (length + len(step), next(numbers), text + step, following))
    return None
