"""The number of repetitions in a run of the benchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """The number of repetitions.

    Attributes:
        rounds: Rounds of quick measurements; slow ones have fewer.
        calls: Numbers of calls after which the client's memory is measured.
        delays: Seconds by which hops are delayed.
    """

    rounds: int = 5
    calls: tuple[int, int] = (100, 1000)
    delays: tuple[float, ...] = (0, 0.025, 0.1)

    @property
    def few(self) -> int:
        """Rounds of slow measurements."""
        return max(1, self.rounds - 2)


QUICK = Effort(rounds=1, calls=(10, 30), delays=(0, 0.025))
