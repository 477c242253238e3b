"""Guesses of what comes next in a text, which one step can check, and how much of a guess is worth sending.

Texts repeat themselves: an answer quotes its prompt, an object has the fields of the one before it. So the guess is
what followed when the end of the text occurred before (prompt lookup). Where a grammar leaves no choice of text, but
one of tokens, the guess is how a tokenizer would write that text. A step that checks some tokens more costs a little
more; what it saves are the steps of those that are right. Both are known: the costs of steps are measured, and guesses
are compared with what came, also those that were not sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Follow = Callable[[Sequence[int], int], tuple[list[int], int]]

_LONGEST = 32  # tokens of a guess
_SIZES = (6, 4, 3, 2, 1)  # of the ends of the text that are looked up, in this order
_MOST_MATCHED = 8  # tokens; longer matches count as this long
# How likely the next token is to be the one that followed a match of 1, 2, ... tokens, until there is experience; and
# the number of guesses that this counts for. Old experience fades.
_CHANCES = (0.2, 0.35, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
_BELIEF, _FADING = 3.0, 0.95
_HOPELESS = 0.02  # chance below which no further token is sent
_LOSS = 0.012  # most that drafts may cost, as a share of the time that all steps would take without them
_CREDIT = 8  # steps; drafts may lose again what they have saved, but not more than this


class Costs(Protocol):
    """What steps cost."""

    def seconds(self, rows: int, tokens: int) -> float | None:
        """Return the expected seconds of a step of so many rows with so many tokens each; None while unknown."""


class Drafts:
    """The drafts of one row.

    Args:
        costs: What steps cost.
    """

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._places = Places()
        self._experience = [[chance * _BELIEF, _BELIEF] for chance in _CHANCES]  # hits and guesses by matched tokens
        self._guessed: tuple[int, int, int] | None = None  # length of the text, where the guess begins, matched tokens
        self._lost = self._spent = 0.0  # seconds: what drafts have cost beyond what they saved; what all steps need

    def next(self, ids: Sequence[int], fresh: int, most: int, follow: Follow) -> list[int]:
        """Return tokens to send with the next step, after those that it has to send; none if that does not pay.

        Args:
            ids: The text; it begins with the text of the call before.
            fresh: How many of its last tokens the step has to send.
            most: Most tokens of the draft.
            follow: Gets a guess and a number of tokens. Returns as much of the guess as may come, with the tokens that
                have to come after it, and the number of these.
        """
        self._learn(ids)
        start, matched = self._places.find(ids)
        self._guessed = (len(ids), start, matched) if matched else None
        if most < 1:
            return []
        most = min(most, _LONGEST)
        tokens, forced = follow(_continuation(ids, start, most) if matched else [], most)
        chances = [self._chance(matched + number) for number in range(len(tokens) - forced)] + [1.0] * forced
        return tokens[: self._worthwhile(chances, fresh)]

    def note(self, fresh: int, drafted: int, spared: int) -> None:
        """Take notice of a step.

        Args:
            fresh: Tokens that it had to send.
            drafted: Tokens of the draft that it sent.
            spared: How many steps the draft has saved.
        """
        one, needed, taken = (self._costs.seconds(1, tokens) for tokens in (1, fresh, fresh + drafted))
        if one is not None and needed is not None and taken is not None:
            saved = spared * one
            self._spent += needed + saved
            self._lost = max(self._lost + taken - needed - saved, -_CREDIT * one)

    def _learn(self, ids: Sequence[int]) -> None:
        """Compare the last guess with what came."""
        if self._guessed is None:
            return
        before, start, matched = self._guessed
        for number in range(min(len(ids) - before, _LONGEST)):
            is_right = ids[start + number] == ids[before + number]
            experience = self._experience[min(matched + number, _MOST_MATCHED) - 1]
            experience[:] = experience[0] * _FADING + is_right, experience[1] * _FADING + 1
            if not is_right:
                break

    def _chance(self, matched: int) -> float:
        hits, guesses = self._experience[min(matched, _MOST_MATCHED) - 1]
        return hits / guesses

    def _worthwhile(self, chances: Sequence[float], fresh: int) -> int:
        """Return how many tokens of a draft bring the most tokens a second, if they may be lost."""
        one, without = self._costs.seconds(1, 1), self._costs.seconds(1, fresh)
        if one is None or without is None:
            return 0
        allowed = _LOSS * (self._spent + without) - self._lost
        length, best, chance, expected = 0, 1.0, 1.0, 1.0
        for number, each in enumerate(chances, start=1):
            chance *= each
            expected += chance
            cost = self._costs.seconds(1, fresh + number)
            if chance < _HOPELESS or cost is None or cost - without > allowed:
                break
            rate = (without + (expected - 1) * one) / cost  # what the tokens cost without a draft, to what they cost so
            if rate > best:
                length, best = number, rate
        return length


class Places:
    """Where the ends of a text occurred in it before."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # tokens, and the position after their latest occurrence
        self._known = 0  # tokens that have been looked at, but for the last one

    def find(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return the position after the latest place where the longest end occurs, and how many tokens match there.

        Args:
            ids: The text; it begins with the text of the call before.

        Returns:
            Zeros if its last token is new.
        """
        for end in range(self._known + 1, len(ids)):
            for size in _SIZES:
                if size <= end:
                    self._after[tuple(ids[end - size : end])] = end
        self._known = max(self._known, len(ids) - 1)
        for size in _SIZES:
            after = self._after.get(tuple(ids[len(ids) - size :])) if size <= len(ids) else None
            if after is not None:
                return after, _matching(ids, after, size)
        return 0, 0


def _matching(ids: Sequence[int], after: int, matched: int) -> int:
    """Return how many tokens before a position are those at the end of the text, if so many are known to be."""
    while matched < min(after, _MOST_MATCHED) and ids[after - matched - 1] == ids[-matched - 1]:
        matched += 1
    return matched


def _continuation(ids: Sequence[int], start: int, length: int) -> list[int]:
    """Return what follows from `start` on; where the text ends, it goes on with what it has repeated."""
    known = list(ids[start : start + length])
    while len(known) < length:
        known += known[: length - len(known)]
    return known
