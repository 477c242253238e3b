"""Two ways to do the same thing, timed in turn, and what their medians say."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes:
        measured: What was measured, and on what.
        against: What it is compared with.
        ours: Median of ours, in `unit`.
        theirs: Median of the other, in `unit`.
        unit: "s", "ms/token", "MB", ...
        gain: How many times better ours is: above 1 is better, whatever the unit.
        at_least: What the gain has to reach; None where it is only reported.
    """

    measured: str
    against: str
    ours: float
    theirs: float
    unit: str
    gain: float
    at_least: float | None = None

    @property
    def reached(self) -> bool:
        return self.at_least is None or self.gain >= self.at_least

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.reached}


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(
    measured: str,
    ours: Callable[[], float],
    against: str,
    theirs: Callable[[], float],
    *,
    unit: str = "s",
    at_least: float | None = None,
    rounds: int = 5,
) -> Comparison:
    """Measure both in turn, A B A B, after a round that does not count, so that drift of the machine hits both.

    Args:
        measured: Name of ours.
        ours: Returns one measurement; less is better.
        against: Name of the other.
        theirs: Likewise.
        unit: Of the measurements.
        at_least: What theirs / ours has to reach.
        rounds: How many count. The gain is the median of the rounds' ratios.
    """
    pairs = [(ours(), theirs()) for _ in range(rounds + 1)][1:]
    return Comparison(
        measured,
        against,
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
        unit,
        statistics.median(other / mine for mine, other in pairs),
        at_least,
    )
