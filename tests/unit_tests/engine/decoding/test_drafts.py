"""Guesses of what comes next: what is guessed, and how much of it is worth sending."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.engine.decoding.drafts import Drafts, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SIZES = (6, 4, 3, 2, 1)


class Prices:
    """Costs of steps that are known.

    Args:
        cost: Seconds by the number of tokens; None while unknown.
    """

    def __init__(self, cost: Callable[[int], float | None]) -> None:
        self._cost = cost

    def seconds(self, rows: int, tokens: int) -> float | None:
        assert rows == 1
        return self._cost(tokens)


FREE = Prices(lambda _: 1.0)


def anything(guess: Sequence[int], most: int) -> tuple[list[int], int]:
    """Allow each guess."""
    return list(guess[:most]), 0


def drafted(ids: Sequence[int], most: int = 100, costs: Prices = FREE) -> list[int]:
    """Return the draft of a row that has said nothing yet."""
    return Drafts(costs).next(ids, len(ids), most, anything)


class Run:
    """A row that writes a text, with drafts.

    Args:
        prompt: The prompt.
        costs: What its steps cost.

    Attributes:
        taken: Seconds of the steps so far.
        needed: Seconds that they would have taken without drafts.
        sent: Tokens of each draft, and how many of them were right.
    """

    def __init__(self, prompt: Sequence[int], costs: Prices) -> None:
        self._drafts, self._costs, self.ids = Drafts(costs), costs, list(prompt)
        self.taken = self.needed = 0.0
        self.sent: list[tuple[int, int]] = []

    def write(self, text: Iterable[int]) -> None:
        """Let the model choose these tokens."""
        left = list(text)
        while left:
            draft = self._drafts.next(self.ids, 1, len(left) - 1, anything)
            right = next((i for i, (one, two) in enumerate(zip(draft, left, strict=False)) if one != two), len(draft))
            self.taken += self._costs.seconds(1, 1 + len(draft)) or 0.0
            self.needed += (right + 1) * (self._costs.seconds(1, 1) or 0.0)
            self._drafts.note(1, len(draft), right)
            self.sent.append((len(draft), right))
            self.ids += left[: right + 1]
            del left[: right + 1]


# ---- what is guessed


def latest(ids: Sequence[int]) -> int:
    """Return the position after the latest place of the longest end that occurred before; 0 if there is none."""
    for size in SIZES:
        places = [after for after in range(size, len(ids)) if list(ids[after - size : after]) == list(ids[-size:])]
        if places and size <= len(ids):
            return places[-1]
    return 0


@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=60), steps=st.lists(st.integers(1, 5)))
def test_the_latest_place_of_the_longest_end_is_found(ids: list[int], steps: list[int]) -> None:
    places, lengths = Places(), [*itertools.accumulate(steps), len(ids)]
    for length in (each for each in lengths if each <= len(ids)):
        known = ids[:length]
        after, matched = places.find(known)
        assert after == latest(known)
        assert (matched > 0) == (after > 0)
        assert known[after - matched : after] == (known[-matched:] if matched else [])


@pytest.mark.parametrize(
    ("ids", "guess"),
    [
        ([1, 2, 3, 4, 5, 9, 1, 2, 3], [4, 5, 9, 1, 2, 3]),
        ([1, 2, 3, 7, 2, 3], [7, 2, 3]),
        ([5, 1, 8, 6, 1, 9, 5, 1], [8, 6, 1, 9, 5, 1]),  # the longer match, not the later one
        ([5, 1, 8, 5, 1, 9, 5, 1], [9, 5, 1]),  # of equal ones the later
    ],
)
def test_a_guess_is_what_followed_the_same_end(ids: list[int], guess: list[int]) -> None:
    assert drafted(ids, len(guess)) == guess


@pytest.mark.parametrize("ids", [[1], [1, 2, 3]])
def test_nothing_is_guessed_after_what_is_new(ids: list[int]) -> None:
    assert drafted(ids) == []


def test_what_repeats_itself_goes_on_so() -> None:
    assert drafted([7] * 12, 10) == [7] * 10
    assert drafted([1, 2, 3, 1, 2], 8) == [3, 1, 2, 3, 1, 2, 3, 1]


@pytest.mark.parametrize("most", [0, 1, 5])
def test_a_draft_has_no_more_tokens_than_there_is_room_for(most: int) -> None:
    assert len(drafted([*range(1, 20), 1, 2, 3], most)) == most


def test_a_draft_is_what_may_follow_and_what_then_must() -> None:
    asked = []

    def follow(guess: Sequence[int], most: int) -> tuple[list[int], int]:
        asked.append((list(guess), most))
        return [guess[0], 50, 51], 2

    assert Drafts(FREE).next([1, 2, 3, 1, 2], 1, 4, follow) == [3, 50, 51]
    assert asked == [([3, 1, 2, 3], 4)]


def test_text_that_must_follow_what_is_new_is_a_draft() -> None:
    assert Drafts(FREE).next([1, 2, 3], 3, 4, lambda guess, most: ([*guess, 50, 51][:most], 2)) == [50, 51]


# ---- what pays


def never_right(number: int) -> list[int]:
    """Return a text in which there is a guess after each second token, and none is right."""
    return [token for new in range(1, number) for token in (0, new)]


SURCHARGES = [0.0, 0.0005, 0.004, 0.019, 0.021, 0.1, 0.7, 3.0]


@pytest.mark.parametrize("surcharge", SURCHARGES)
@pytest.mark.parametrize("slope", SURCHARGES)
@pytest.mark.parametrize("length", [1, 10, 100])
def test_a_row_that_never_profits_loses_two_percent_at_most(surcharge: float, slope: float, length: int) -> None:
    run = Run([0, 0], Prices(lambda tokens: 1.0 + surcharge * (tokens > 1) + slope * (tokens - 1)))
    run.write(never_right(length))
    assert run.taken <= 1.02 * run.needed


@pytest.mark.parametrize("surcharge", SURCHARGES)
def test_a_row_that_has_profited_does_not_lose_it_all_again(surcharge: float) -> None:
    run = Run([*range(1000, 1100), 1000], Prices(lambda tokens: 1.0 + surcharge * (tokens > 1) + 0.002 * (tokens - 1)))
    run.write(range(1001, 1100))
    saved = run.needed - run.taken
    run.write(never_right(300))
    assert run.needed - run.taken >= saved - 8 - 0.02 * run.needed


@pytest.mark.parametrize(("slope", "speed"), [(0.0, 15), (0.01, 10), (0.1, 3), (0.3, 1.5)])
def test_a_text_that_is_repeated_comes_faster(slope: float, speed: float) -> None:
    run = Run([*range(1000, 1300), 1000], Prices(lambda tokens: 1.0 + slope * (tokens - 1)))
    run.write(range(1001, 1300))
    assert run.needed >= speed * run.taken


def test_drafts_stop_after_a_series_of_misses_and_come_again_when_guesses_are_right() -> None:
    run = Run([0, 0], Prices(lambda tokens: 1.0 + 0.0001 * (tokens - 1)))
    run.write(never_right(300))
    assert not any(length for length, _ in run.sent[-200:])
    run.write([1000, 1001, 1002, 1003] * 10)
    assert sum(right for _, right in run.sent[598:]) > 20


def test_nothing_is_drafted_where_more_tokens_cost_as_many_steps() -> None:
    run = Run([*range(100, 200), 100], Prices(float))
    run.write(range(101, 200))
    assert not any(length for length, _ in run.sent)


@pytest.mark.parametrize("known", [0, 1])
def test_nothing_is_drafted_before_costs_are_known(known: int) -> None:
    run = Run([1, 1], Prices(lambda tokens: 1.0 if tokens <= known else None))
    run.write([1] * 20)
    assert not any(length for length, _ in run.sent)


def test_looking_up_a_long_text_takes_no_longer_than_a_short_one() -> None:
    """Each token is looked at once, however long the text before it is."""

    class Counted(list[int]):
        read = 0

        def __getitem__(self, place):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN204
            Counted.read += 1
            return super().__getitem__(place)

    places, ids = Places(), Counted(range(8000))
    places.find(ids)
    reads = []
    for token in range(100):
        Counted.read = 0
        ids.append(token)
        places.find(ids)
        reads.append(Counted.read)
    assert max(reads) < 60
