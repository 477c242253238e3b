"""The way out of a grammar: byte by byte to a place where the text may end.

A grammar's parser says which bytes may come next, not how far the end is. `quick_ending` goes straight for it, always
taking the byte that tends to close something; `shortest_ending` looks at the alternatives, cheapest first, as long as
its effort lasts. Both work on a matcher whose vocabulary is single bytes and special tokens (an *alphabet*), so that a
step costs microseconds whatever the size of the model's vocabulary. How to end what a regular expression has begun, the
bytes that may come next do not tell; the alphabet knows hints, taken from the expressions themselves (see `patterns`).
"""

from __future__ import annotations

import copy
import heapq
import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from llguidance import LLMatcher

    from langchain_petals.engine.constraints.patterns import Hints

# What ends something comes first, what must be followed by something else last. A comma comes before digits, which
# could go on for ever.
_PREFERENCE = b"}])\"'>,;:0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LAST = b"{[(\\"

# Of many bytes that may come next, one of each kind is looked at; and most likely they stand in a string, which a quote
# would end.
_KINDS = (range(0x31, 0x3A), range(0x61, 0x7B), range(0x41, 0x5B), range(0x80, 0xC0), range(0xC2, 0xF5), range(0x20))
_MANY = 16

# Where much is allowed and a quote is not, what a pattern still wants is seen by trying these.
_FILLERS, _LENGTHS = b"0aA", (1, 2, 3, 4, 6, 8)

# Hints are tried one by one: so many are for what may follow a terminal, and for a step to search on from. Where a text
# goes on and on they are looked at now and then only; it is further from its end than any of them.
_TERMINALS, _PARTS, _EAGER, _SELDOM = 32, 8, 16, 16

# Where the straight way has not led to an end, the alternatives are followed for so many bytes only: most end nowhere.
_DOUBTFUL = 1024

# How many states with the same future, as far as the next byte shows it, are looked at for each length.
_ALIKE = 3

# llguidance shows a special token among forced bytes like this.
_SPECIAL = re.compile(rb"\xff\[(\d+)\]")


class Alphabet:
    """The single bytes and special tokens of a vocabulary.

    Args:
        byte_ids: Token ids by the byte that they stand for.
        special_ids: Ids of special tokens.
        vocabulary: How many ids there are.
        end: The id that ends a text.
    """

    def __init__(self, byte_ids: Mapping[int, int], special_ids: Iterable[int], vocabulary: int, end: int) -> None:
        ranks = {byte: rank for rank, byte in enumerate(_PREFERENCE)} | {byte: 1000 + byte for byte in _LAST}
        order = sorted(byte_ids, key=lambda byte: ranks.get(byte, 500 + byte))
        self.byte_ids = dict(byte_ids)
        self._ids = np.array([byte_ids[byte] for byte in order] + sorted(special_ids), dtype=np.int64)
        kinds = {byte: kind for kind, members in enumerate(_KINDS) for byte in members}
        self._quote = byte_ids.get(ord('"'), -1)
        self._words = {token for byte, token in byte_ids.items() if bytes([byte]).isalnum()}
        self._closings = [
            [byte_ids[filler]] * length + [self._quote]
            for length in _LENGTHS
            for filler in _FILLERS
            if filler in byte_ids and self._quote >= 0
        ]
        self._kinds = {byte_ids[byte]: kinds.get(byte, -1 - byte) for byte in order}
        self._mask_words = (vocabulary + 31) // 32
        self._end = end
        self._strings: list[list[int]] = []
        self._texts: list[list[int]] = []
        self._terminals: list[list[int]] = []
        self._parts: list[list[int]] = []

    def hinted(self, hints: Hints) -> Alphabet:
        """Return an alphabet that knows these hints."""
        hinted = copy.copy(self)
        spelled = [[self.symbols(text) for text in texts] for texts in hints]
        hinted._strings, hinted._texts, hinted._terminals, hinted._parts = spelled  # noqa: SLF001 - its own
        return hinted

    def symbols(self, data: bytes) -> list[int]:
        """Return the ids of these bytes.

        Raises:
            KeyError: One of them is part of no text.
        """
        return [self.byte_ids[byte] for byte in data]

    def allowed(self, matcher: LLMatcher) -> list[int]:
        """Return the ids that may come next, the most promising first."""
        mask = np.zeros(self._mask_words, dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
        octets = mask.view(np.uint8)
        ids: list[int] = self._ids[(octets[self._ids >> 3] >> (self._ids & 7)) & 1 == 1].tolist()
        return ids

    def closings(self, matcher: LLMatcher, allowed: Sequence[int], *, hinted: bool = True) -> Iterator[list[int]]:
        """Yield short ways to end the string or the expression that the text is in, if it is in one."""
        many = len(allowed) > _MANY
        if hinted:
            for each in self._fitting([*self._texts, *self._terminals], matcher, allowed):
                if matcher.validate_tokens([*each, self._end]) > len(each):
                    yield each
            # where a bracket or a quote closes something, that is better
            if self._terminals and (many or self._words.issuperset(allowed[:1])):
                for each in self._fitting(self._terminals[:_TERMINALS], matcher, allowed):
                    yield from self._left(matcher, each, allowed)
        if self._quote not in allowed:
            yield from self._fitting(self._strings if hinted else (), matcher, allowed)
            yield from self._fitting(self._closings if many else (), matcher, allowed)
        elif many:
            yield [self._quote]

    @staticmethod
    def _fitting(hints: Sequence[list[int]], matcher: LLMatcher, allowed: Sequence[int]) -> Iterator[list[int]]:
        begins = set(allowed if hints else ())
        return (each for each in hints if each[0] in begins and matcher.validate_tokens(each) == len(each))

    def _left(self, matcher: LLMatcher, symbols: list[int], allowed: Sequence[int]) -> list[list[int]]:
        """Return the symbols with one more after which they have ended something, since it was not allowed before."""
        known = set(allowed)
        taken = matcher.try_consume_tokens(symbols)
        more = [each for each in self.allowed(matcher) if each not in known]
        matcher.rollback(taken)
        return [[*symbols, each] for each in more[:1]]

    def step(self, matcher: LLMatcher, *, hinted: bool = True) -> list[int]:
        """Return what most likely leads to an end; nothing where nothing is allowed.

        Args:
            matcher: Where the text is.
            hinted: Whether to look at the hints.
        """
        allowed = self.allowed(matcher)
        closing = next(self.closings(matcher, allowed, hinted=hinted), None)
        if closing is not None:
            return closing
        if 1 < len(allowed) <= _MANY and allowed[0] in self._words:
            # a number or a word, which may not end here: -0.000 and multiples of 4 need the right digit
            more = [each for each in allowed if each in self._words]
            return next(([each] for each in more if self._closes(matcher, each)), allowed[:1])
        return allowed[:1]

    def _closes(self, matcher: LLMatcher, symbol: int) -> bool:
        taken = matcher.try_consume_tokens([symbol])
        closes = taken == 1 and (matcher.is_accepting() or not self._words.issuperset(self.allowed(matcher)[:1]))
        matcher.rollback(taken)
        return closes

    def choices(self, matcher: LLMatcher) -> list[list[int]]:
        """Return a few steps that stand for all that may come next."""
        allowed = self.allowed(matcher)
        steps = list(itertools.islice(self.closings(matcher, allowed), 1))
        if steps in ([], [[self._quote]]):
            steps += itertools.islice(self._fitting(self._parts, matcher, allowed), _PARTS)
        if len(allowed) <= _MANY:
            return [*steps, *([each] for each in allowed)]
        first: dict[int, int] = {}
        for each in allowed:
            first.setdefault(self._kinds.get(each, each), each)
        return [*steps, *([each] for each in first.values())]

    def forced(self, matcher: LLMatcher) -> list[int]:
        """Return the ids that must come next, whatever is chosen."""
        data = matcher.compute_ff_bytes()
        if b"\xff" not in data:
            return self.symbols(data)
        found = _SPECIAL.match(data)
        return [int(found[1])] if found else self.symbols(data[: data.index(b"\xff")])


def quick_ending(alphabet: Alphabet, matcher: LLMatcher, most: int) -> list[int] | None:
    """Return a way to an end, not always the shortest.

    Args:
        alphabet: What the way consists of.
        matcher: Where it starts; left as it was.
        most: Longest way to follow.

    Returns:
        Ids of the alphabet; None when there was no end in sight.
    """
    way: list[int] = []
    taken = alone = 0  # bytes in a row that came one at a time
    try:
        while not matcher.is_accepting():
            hinted = alone < _EAGER or alone % _SELDOM == 0
            step = alphabet.forced(matcher) or alphabet.step(matcher, hinted=hinted)
            way += step
            alone = 0 if len(step) > 1 else alone + 1
            if not step or len(way) > most:
                return None
            taken += matcher.try_consume_tokens(step)
            if taken < len(way):
                return None
    except KeyError:  # a byte that is part of no text
        return None
    else:
        return way
    finally:
        matcher.rollback(taken)


def shortest_ending(alphabet: Alphabet, matcher: LLMatcher, most: int, effort: int = 400) -> list[int] | None:
    """Return the shortest way to an end that a bounded search finds.

    Wherever there is a choice, each alternative is followed to its end by `quick_ending`, and the best one taken. Where
    that leads to no end at all, the alternatives are looked at in the order of their lengths.

    Args:
        alphabet: What the way consists of.
        matcher: Where it starts; left as it was.
        most: Longest way to follow.
        effort: States to go on from.

    Returns:
        Ids of the alphabet; None when there was no end in sight.
    """
    way = _best_by_trying(alphabet, matcher.deep_copy(), most, effort)
    return _nearest(alphabet, matcher, most, effort) if way is None else way


def _best_by_trying(alphabet: Alphabet, matcher: LLMatcher, most: int, effort: int) -> list[int] | None:
    way: list[int] = []
    best = quick_ending(alphabet, matcher, most)  # from where `way` has led
    while effort > 0 and not matcher.is_accepting():
        try:
            step = alphabet.forced(matcher)
        except KeyError:  # a byte that is part of no text
            return None
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
        way += step
        best = None if best is None else best[len(step) :]
    return None if best is None else way + best


class _Node(NamedTuple):
    cost: int
    number: int  # settles ties
    matcher: LLMatcher
    way: tuple[int, ...]


def _nearest(alphabet: Alphabet, matcher: LLMatcher, most: int, effort: int) -> list[int] | None:
    numbers = itertools.count()
    nodes = [_Node(0, next(numbers), matcher.deep_copy(), ())]
    seen: Counter[tuple[int, tuple[tuple[int, ...], ...]]] = Counter()
    while nodes and effort:
        node = heapq.heappop(nodes)
        if node.matcher.is_accepting():
            return list(node.way)
        try:
            steps = [alphabet.forced(node.matcher)]
        except KeyError:
            continue
        if not steps[0]:
            steps = alphabet.choices(node.matcher)
            key = (node.cost, tuple(map(tuple, steps)))
            seen[key] += 1
            if seen[key] > _ALIKE:
                continue
        effort -= 1
        for step in steps:
            following = node.matcher.deep_copy()
            cost = node.cost + len(step)
            if cost <= most and following.try_consume_tokens(step) == len(step):
                heapq.heappush(nodes, _Node(cost, next(numbers), following, (*node.way, *step)))
    return None
