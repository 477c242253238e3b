"""How thorough a run of the benchmarks is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """How thorough to be.

    Attributes:
        rounds: How often quick things are measured; slow ones less often.
        calls: Calls after which the client's memory is looked at, early and late.
        delays: Seconds by which hops are held up.
    """

    rounds: int = 5
    calls: tuple[int, int] = (100, 1000)
    delays: tuple[float, ...] = (0, 0.025, 0.1)

    @property
    def few(self) -> int:
        """How often slow things are measured."""
        return max(1, self.rounds - 2)


QUICK = Effort(rounds=1, calls=(10, 30), delays=(0, 0.025))
