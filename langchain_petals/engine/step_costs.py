"""What steps cost: measured while they run, to decide who shares a session and how long drafts may be.

A step of `rows` rows with `tokens` tokens each takes a latency that steps of other sessions do not lengthen (the way to
the servers and back), and work that servers and client do for one step after the other:

    work = fixed + (rows - 1) * per row + rows * (tokens - 1) * per token + (more than one token: a surcharge)

The surcharge is there since some servers have a fast path for steps of a single token. When sessions run side by side,
a step also waits for the work of others; `contended` tells how long.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from numpy.typing import NDArray

    _Numbers = NDArray[np.float64]

_KEPT = 9  # latest steps of each kind; their median is used, so up to four outliers do no harm
_KINDS = 64  # kinds of steps that are remembered; the one that was not seen for longest is forgotten first
# Steps one after the other, after which an older kind counts half; after which it counts nothing; its least weight.
_HALF_LIFE, _LIFE, _OLD = 64, 512, 0.02
_LATENCIES = 33  # values that are tried, from none to the shortest step
_LONGEST_SHARE = 0.98  # of the shortest step, that may be latency
_REFIT = 16  # a new estimate is made when so many steps came, or a quarter of those that there were
_UNASKED = 32  # steps one after the other, after which it is made even if nobody asks, before older kinds fade
# Before they are measured, as shares of the shortest step: latency, and what a further row and a further token cost;
# and how much what is believed counts against one kind of steps that was measured.
_LATENCY_SHARE, _ROW_SHARE, _TOKEN_SHARE, _BELIEF = 0.5, 0.02, 0.005, 0.02
_SIDE_BY_SIDE = 1.5  # sessions at the same time, which tell latency from work
_RIDGE = 1e-9  # relative addition that keeps equations solvable where steps of very different sizes were measured


def contended(latency: float, work: float, total: float) -> float:
    """Return how long something takes whose work is done in turn with that of others.

    This is Schweitzer's estimate for a closed queue, made exact for one session and for a latency of 0.

    Args:
        latency: Seconds for which it only waits, which others do not lengthen.
        work: Seconds of its own work.
        total: Seconds of the work of all, with its own.
    """
    return (latency + total + math.sqrt((latency - total) ** 2 + 4 * work * latency)) / 2


@dataclass(frozen=True)
class Costs:
    """What a step costs, in seconds; see this module.

    Attributes:
        latency: For which all steps wait at the same time.
        fixed: Work of a step of one token.
        row: Work of each further row.
        token: Work of each token of each row after the first.
        several: Work that a step has for sending more than one token in a row.
    """

    latency: float
    fixed: float
    row: float
    token: float
    several: float

    def work(self, rows: Any, tokens: Any) -> Any:
        """Return the seconds of a step, or an array of steps, in which it occupies servers or client.

        `tokens` may be a mean: of steps with 1.1 tokens on average, at most a tenth have more than one.
        """
        further = tokens - 1
        more = self.several * np.minimum(1, further) + rows * self.token * further
        return self.fixed + self.row * (rows - 1) + more

    def seconds(self, rows: int, tokens: float, sessions: int = 1) -> float:
        """Return the seconds of a step while `sessions` sessions, with this one, make such steps."""
        work: float = self.work(rows, tokens)
        return contended(self.latency, work, sessions * work)


@dataclass(frozen=True)
class _Step:
    rows: int
    tokens: int
    sessions: float
    seconds: float


@dataclass
class _Kind:
    """Steps of about the same size on the same servers, with about as many at the same time."""

    latest: deque[_Step] = field(default_factory=lambda: deque(maxlen=_KEPT))
    age: float = 0.0  # of the client, at the newest one

    @property
    def median(self) -> _Step:
        return sorted(self.latest, key=lambda step: step.seconds)[(len(self.latest) - 1) // 2]


class StepCosts:
    """Measures the steps of one client; safe to use from several threads.

    The latest steps of each kind count. After a change of servers, what was measured on others does not count any more,
    but for the ratios between latency, work, rows and tokens: these are believed until they are measured.

    Args:
        latency: Returns the seconds that messages need to all servers and back, as pings say; None where that is not
            known. It counts until sessions have run side by side.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, latency: Callable[[], float | None] = lambda: None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._pinged, self._clock = latency, clock
        self._lock = threading.Lock()
        self._kinds: OrderedDict[tuple[Hashable, int, int, int], _Kind] = OrderedDict()
        # latency, work of a further row, and of a further token, as shares of a step of one token
        self._believed = _LATENCY_SHARE, _ROW_SHARE, _TOKEN_SHARE
        self._one: float | None = None  # seconds of that step, as estimated last; None if not yet on these servers
        self._noted, self._fitted = 0, 0
        self._age, self._fitted_age = 0.0, 0.0  # in steps that one session would have made
        self._chain: Hashable = None
        self._costs: Costs | None = None
        self._running, self._area, self._changed_at = 0, 0.0, clock()

    @contextlib.contextmanager
    def measure(self, rows: int, tokens: int, *, chain: Hashable = None, is_usual: bool = True) -> Iterator[None]:
        """Measure the step that the block makes; it is not noted if it raises.

        Args:
            rows: Rows of the step.
            tokens: Tokens of each row.
            chain: Equal for steps on the same servers.
            is_usual: False for a step that costs more than others, since it connects to servers or is a retry. It is
                not noted, but other steps know that it ran at the same time.
        """
        begun, before = self._enter(1)
        try:
            yield
        except BaseException:
            self._enter(-1)
            raise
        ended, after = self._enter(-1)
        taken = ended - begun
        if is_usual and taken > 0:
            self._note(_Step(rows, tokens, max(1.0, (after - before) / taken), taken), chain)

    def _enter(self, change: int) -> tuple[float, float]:
        """Count a step that begins or ends; return the time, and the seconds of all steps until then."""
        with self._lock:
            now = self._clock()
            self._area += self._running * (now - self._changed_at)
            self._running += change
            self._changed_at = now
            return now, self._area

    def _note(self, step: _Step, chain: Hashable) -> None:
        key = chain, _class_of(step.rows), _class_of(step.tokens), _class_of(round(step.sessions))
        with self._lock:
            if chain != self._chain:
                self._refit(least=1)
                self._chain, self._noted, self._fitted, self._one = chain, 0, 0, None
            self._noted += 1
            self._age += 1 / step.sessions
            kind = self._kinds.setdefault(key, _Kind())
            kind.latest.append(step)
            kind.age = self._age
            self._kinds.move_to_end(key)
            if len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
            if self._age - self._fitted_age >= _UNASKED:
                self._refit(least=1)

    @property
    def costs(self) -> Costs | None:
        """What steps cost now; None while none was measured."""
        with self._lock:
            self._refit(least=max(1, min(_REFIT, self._fitted // 4)))
            return self._costs

    def _refit(self, least: int) -> None:
        """Make a new estimate if so many steps came since the last one."""
        if self._noted - self._fitted >= least:
            self._costs, self._fitted, self._fitted_age = self._fit(), self._noted, self._age

    def seconds(self, rows: int, tokens: int, sessions: int = 1) -> float | None:
        """Return the expected seconds of a step; None while no step was measured.

        Args:
            rows: Rows of the step.
            tokens: Tokens of each row.
            sessions: Sessions that make such steps at the same time, with this one.
        """
        costs = self.costs
        return None if costs is None else costs.seconds(rows, tokens, sessions)

    def _fit(self) -> Costs:
        """Find the costs that explain the medians best, by least squares of relative errors.

        For a given latency, the work of a measured step follows from its time, and the parts of the work from a linear
        regression. So some latencies are tried. Where no sessions ran side by side, all explain the steps equally well,
        and the expected one decides.
        """
        kinds = [kind for key, kind in self._kinds.items() if key[0] == self._chain and self._age - kind.age < _LIFE]
        steps = [kind.median for kind in kinds]
        rows = np.array([step.rows for step in steps], dtype=float)
        tokens = np.array([step.tokens for step in steps], dtype=float)
        sessions = np.array([step.sessions for step in steps])
        taken = np.array([step.seconds for step in steps])
        age = np.array([self._age - kind.age for kind in kinds])
        weights = np.array([len(kind.latest) / _KEPT for kind in kinds])
        weights *= np.maximum(_OLD, 0.5 ** (age / _HALF_LIFE)) / taken**2
        shortest = float(min(taken))
        latencies = np.linspace(0.0, _LONGEST_SHARE * shortest, _LATENCIES)[:, None]
        rest = taken - latencies
        work = rest * taken / (sessions * rest + latencies)  # what `contended` makes to `taken`
        parts = np.stack([np.ones_like(rows), rows - 1, rows * (tokens - 1), (tokens > 1).astype(float)])
        # the shortest step that is remembered may have many rows, so what is believed is no share of it
        one = shortest if self._one is None else self._one
        expected_latency, *expected_work = (one * share for share in self._believed)
        pinged = self._pinged()
        if pinged is not None and sessions.max() < _SIDE_BY_SIDE:
            expected_latency = pinged
        latency_share = min(expected_latency / shortest, _LONGEST_SHARE)
        belief = _BELIEF / shortest**2 * np.array([0.0, 1.0, 1.0, 0.1])
        expected = np.array([0.0, *expected_work, 0.0])
        products = (parts * weights) @ parts.T + np.diag(belief)
        found = _not_negative(products, (work * weights) @ parts.T + belief * expected)
        alone = found @ parts
        total = sessions * alone
        predicted = (latencies + total + np.sqrt((latencies - total) ** 2 + 4 * alone * latencies)) / 2
        errors = ((predicted - taken) ** 2 * weights).sum(axis=1)
        errors += (belief * (found - expected) ** 2).sum(axis=1)
        errors += _BELIEF * (latencies[:, 0] / shortest - latency_share) ** 2
        best = int(errors.argmin())
        latency, (fixed, row, token, several) = float(latencies[best, 0]), map(float, found[best])
        fixed = max(fixed, (1 - _LONGEST_SHARE) * shortest)
        costs = Costs(latency, fixed, min(row, fixed), token, several)  # in company, a row costs no more than alone
        self._one = one = costs.seconds(1, 1)
        self._believed = latency / one, row / one, token / one
        return costs


def _class_of(count: int) -> int:
    """Return a class of similar numbers: each up to 4 has its own, then two for each doubling."""
    return count if count <= 4 else round(2 * math.log2(count))  # noqa: PLR2004 - see above


def _not_negative(matrix: _Numbers, targets: _Numbers) -> _Numbers:
    """Minimise x·matrix·x - 2 x·target over x >= 0, for each row of `targets`.

    At the minimum, some numbers are 0, and for the others it is a minimum without bounds. There are few, so all
    choices are tried: an equation for each, where the numbers that are 0 stand alone.
    """
    matrix = matrix + _RIDGE * np.diag(matrix.diagonal())
    size = len(matrix)
    used = (np.arange(2**size)[:, None] >> np.arange(size) & 1).astype(bool)
    matrices = np.where(used[:, :, None] & used[:, None, :], matrix, np.eye(size))
    values = np.linalg.solve(matrices, np.where(used[:, :, None], targets.T, 0.0))  # choices, numbers, rows of targets
    reached = np.where((values >= 0).all(axis=1), (values * targets.T).sum(axis=1), -np.inf)
    found: _Numbers = values[reached.argmax(axis=0), :, np.arange(len(targets))]
    return found
