"""Plots of the docs: how many times faster than others, and seconds with fewer trips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.comparison import Comparison

SHOWN_DELAY = 0.1
"""Seconds a hop of the plot of trips: those of servers far away from each other."""

_GREY, _BLUE, _GREEN = "#b0b0b0", "#4c78a8", "#54a24b"


@dataclass(frozen=True)
class TripBars:
    """Seconds of one kind of answer.

    Attributes:
        each: With a trip for each token.
        now: On released servers.
        rolling_back: On servers that can roll back; None if these were not measured.
    """

    each: float
    now: float
    rolling_back: float | None = None


def trip_bars(lines: Sequence[Comparison]) -> dict[str, TripBars]:
    """Return the bars of each task that was measured with `SHOWN_DELAY`."""
    found: dict[str, dict[bool, Comparison]] = {}
    for line in lines:
        task, delayed, kind = line.measured.partition(at(SHOWN_DELAY))
        if delayed and line.trips is not None:
            found.setdefault(task, {})[bool(kind)] = line
    return {
        task: TripBars(kinds[False].theirs, kinds[False].ours, kinds[True].ours if True in kinds else None)
        for task, kinds in found.items()
    }


def draw_gains(lines: Sequence[Comparison], path: Path) -> None:
    """Draw a bar for each line that compares seconds with those of others."""
    gains = [line for line in lines if line.unit == "s" and line.ratio is not None and line.trips is None][::-1]
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(gains) + 1), layout="constrained")
    ratios = [line.ratio for line in gains if line.ratio is not None]
    labels = [f"{line.measured}\nagainst {line.against}" for line in gains]
    bars = axes.barh(labels, [ratio - 1 for ratio in ratios], left=1, color=_BLUE)
    axes.bar_label(bars, [f"{ratio:.3g} x" for ratio in ratios], padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(1, *ratios) * 0.9, 2 * max(ratios))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("times faster (logarithmic)")
    _save(plt, figure, axes, path)


def draw_trips(tasks: Mapping[str, TripBars], path: Path) -> None:
    """Draw two or three bars for each task: its seconds with a trip for each token, and now."""
    kinds = [("a trip for each token", _GREY, [bars.each for bars in tasks.values()])]
    kinds.append(("now, released servers (Petals 2.2)", _BLUE, [bars.now for bars in tasks.values()]))
    newer = [bars.rolling_back for bars in tasks.values() if bars.rolling_back is not None]
    if len(newer) == len(tasks):
        kinds.append(("now, servers that roll back (Petals 2.3)", _GREEN, newer))
    plt = _pyplot()
    height = 0.8 / len(kinds)
    figure, axes = plt.subplots(figsize=(9, 0.22 * len(kinds) * len(tasks) + 1.2), layout="constrained")
    for number, (label, color, seconds) in enumerate(kinds):
        places = [place + (number - (len(kinds) - 1) / 2) * height for place in range(len(tasks))]
        bars = axes.barh(places, seconds, height, label=label, color=color)
        axes.bar_label(bars, [f"{each:.1f} s" for each in seconds], padding=3, fontsize=8)
    axes.set_yticks(range(len(tasks)), list(tasks))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(f"seconds for an answer{at(SHOWN_DELAY)}")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=len(kinds))
    _save(plt, figure, axes, path)


def _pyplot() -> Any:
    import matplotlib as mpl  # noqa: PLC0415 - only a run that is published draws

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "langchain-petals"  # equal numbers give equal files
    import matplotlib.pyplot as plt  # noqa: PLC0415

    return plt


def _save(plt: Any, figure: Any, axes: Any, path: Path) -> None:
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
