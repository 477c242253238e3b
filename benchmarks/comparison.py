"""Measures several ways to do one thing in turn, and compares their medians."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Name = TypeVar("Name", str, int)
Taken = TypeVar("Taken")


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
        measured: What was measured, and on what.
        against: What it is compared with; "bound" if that is a number and not a measurement.
        ours: Median of ours, in `unit`.
        theirs: Median of the other, or the bound, in `unit`.
        unit: "s", "ms/token", "MB", ...
        ratio: Ours to theirs, or for a gain theirs to ours; None if a ratio says nothing.
        target: The target in words; empty if there is none.
        reached: Whether the target was reached.
        trips: Medians of the steps through the swarm, ours and the other's; None if they are not counted.
    """

    measured: str
    against: str
    ours: float
    theirs: float
    unit: str
    ratio: float | None
    target: str = ""
    reached: bool = True
    trips: tuple[float, float] | None = None


def at(delay: float) -> str:
    """Return the part of a name that tells by how many seconds hops are delayed."""
    return f", {delay * 1000:g} ms a hop" if delay else ""


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    works: Mapping[Name, Callable[[], Taken]], *, rounds: int, warm_up: bool = True
) -> dict[Name, Sequence[Taken]]:
    """Measure in the order A B C A B C ..., so that other load of the machine affects all alike.

    Args:
        works: Each returns one measurement.
        rounds: Number of rounds that count.
        warm_up: Whether one more round comes first, which does not count.

    Returns:
        The measurements, in the order in which they were taken.
    """
    taken: dict[Name, list[Taken]] = {name: [] for name in works}
    for index in range(rounds + warm_up):
        for name, work in works.items():
            measurement = work()
            if index >= warm_up:
                taken[name].append(measurement)
    return dict(taken)


def faster(
    measured: str, ours: Sequence[float], against: str, theirs: Sequence[float], *, at_least: float | None = None
) -> Comparison:
    """Compare seconds, by the median of the rounds' ratios of theirs to ours."""
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
    """Compare costs, by the median of the rounds' ratios of ours to theirs."""
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
