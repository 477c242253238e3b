"""Ways to do the same thing, measured in turn, and what their medians say."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Name = TypeVar("Name", str, int)


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
        measured: What was measured, and on what.
        against: What it is compared with; the word "bound" where that is a number and not a measurement.
        ours: Median of ours, in `unit`.
        theirs: Median of the other, or the bound, in `unit`.
        unit: "s", "ms/token", "MB", ...
        ratio: Ours to theirs, or for a gain theirs to ours; None where either says nothing.
        target: What was to be reached, as people write it; empty where nothing was.
        reached: Whether it was.
    """

    measured: str
    against: str
    ours: float
    theirs: float
    unit: str
    ratio: float | None
    target: str = ""
    reached: bool = True


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    works: Mapping[Name, Callable[[], float]], *, rounds: int, warm_up: bool = True
) -> dict[Name, Sequence[float]]:
    """Measure A B C A B C ..., so that whatever else the machine does hits all of them.

    Args:
        works: Each returns one measurement.
        rounds: How many count.
        warm_up: Whether a round that does not count goes first.

    Returns:
        The measurements, in the order in which they were taken.
    """
    taken: dict[Name, list[float]] = {name: [] for name in works}
    for index in range(rounds + warm_up):
        for name, work in works.items():
            measurement = work()
            if index >= warm_up:
                taken[name].append(measurement)
    return dict(taken)


def faster(
    measured: str, ours: Sequence[float], against: str, theirs: Sequence[float], *, at_least: float | None = None
) -> Comparison:
    """Compare seconds: how many times faster is ours? The ratio is the median of the rounds' ratios."""
    ratio = statistics.median(other / mine for mine, other in zip(ours, theirs, strict=True))
    return Comparison(
        measured,
        against,
        statistics.median(ours),
        statistics.median(theirs),
        "s",
        ratio,
        "" if at_least is None else f"at least {at_least:g} x",
        at_least is None or ratio >= at_least,
    )


def overhead(
    measured: str, ours: Sequence[float], against: str, theirs: Sequence[float], *, unit: str, at_most: float
) -> Comparison:
    """Compare costs: how many times as much is ours? The ratio is the median of the rounds' ratios."""
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    return Comparison(
        measured,
        against,
        statistics.median(ours),
        statistics.median(theirs),
        unit,
        ratio,
        f"at most {at_most:g} x",
        ratio <= at_most,
    )


def bounded(measured: str, value: float, bound: float, *, unit: str) -> Comparison:
    """Compare a measurement with a number that it must not exceed."""
    return Comparison(measured, "bound", value, bound, unit, None, f"at most {bound:g} {unit}", value <= bound)
