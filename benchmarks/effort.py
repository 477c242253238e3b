"""What a run of the benchmarks includes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Effort:
    """The number of repetitions, and the servers.

    Attributes:
        rounds: Rounds of quick measurements; slow ones have fewer.
        calls: Numbers of calls after which the client's memory is measured.
        delays: Seconds by which hops are delayed.
        rolling_back: Interpreter of servers that can roll back; None leaves out the rows with such servers.
    """

    rounds: int = 5
    calls: tuple[int, int] = (100, 1000)
    delays: tuple[float, ...] = (0, 0.025, 0.1)
    rolling_back: Path | None = None

    @property
    def few(self) -> int:
        """Rounds of slow measurements."""
        return max(1, self.rounds - 2)


QUICK = Effort(rounds=1, calls=(10, 30), delays=(0, 0.025))
