"""Plots of the docs: how many times faster than others, and seconds with fewer trips."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.comparison import at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.comparison import Comparison

SHOWN_DELAY = 0.1
"""Seconds a hop of the plot of trips: those of servers far away from each other."""

_GREY, _BLUE, _GREEN = "#a0a0a0", "#4c78a8", "#54a24b"
_INK = "#12ab34"
"""Stands for the color of text and lines, which depends on the reader's color scheme."""

_STYLE = """
<style>
svg { --ink: #1f2033 }
@media (prefers-color-scheme: dark) { svg { --ink: #e6e4ee } }
</style>
"""

_WIDTHS = {"": 9.0, "-narrow": 5.0}
"""Inches of each form, by what its name ends with: on pages, and on phones."""

_POINTS = 72  # an inch
_LINE, _BAR, _GAP = 14.0, 15.0, 12.0  # points


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


@dataclass(frozen=True)
class Bar:
    """One bar: its length, its kind and what stands at its end."""

    length: float
    color: str
    said: str


def draw_gains(lines: Sequence[Comparison], path: Path) -> list[Path]:
    """Draw a bar for each line that compares seconds with those of others."""
    groups = {
        f"{line.measured}, against {line.against}": [Bar(line.ratio, _BLUE, f"{line.ratio:.3g} x")]
        for line in lines
        if line.unit == "s" and line.ratio is not None and line.trips is None
    }
    return _draw(groups, path, "times faster (logarithmic)", start=1)


def draw_trips(tasks: Mapping[str, TripBars], path: Path) -> list[Path]:
    """Draw two or three bars for each task: its seconds with a trip for each token, and now."""
    kinds = {"a trip for each token": _GREY, "now, released servers (Petals 2.2)": _BLUE}
    if all(bars.rolling_back is not None for bars in tasks.values()):
        kinds["now, servers that roll back (Petals 2.3)"] = _GREEN
    groups = {}
    for task, bars in tasks.items():
        seconds = (bars.each, bars.now, bars.rolling_back)
        groups[task] = [
            Bar(each, color, f"{each:.1f} s")
            for each, color in zip(seconds, kinds.values(), strict=False)
            if each is not None
        ]
    return _draw(groups, path, f"seconds for an answer{at(SHOWN_DELAY)}", kinds=kinds)


def _draw(
    groups: Mapping[str, Sequence[Bar]],
    path: Path,
    unit: str,
    *,
    start: float = 0,
    kinds: Mapping[str, str] | None = None,
) -> list[Path]:
    """Draw bars below the names of their groups, in each of `_WIDTHS`; return the files' paths.

    Args:
        groups: Bars by the name of their group.
        path: File of the wide form.
        unit: What the axis shows.
        start: Where bars begin; the axis is logarithmic if that is not 0.
        kinds: Colors of the legend, by their meanings.
    """
    plt = _pyplot()
    written = []
    for ending, width in _WIDTHS.items():
        names = [textwrap.wrap(name, int(width * 12)) for name in groups]
        bars_in_all = sum(map(len, groups.values()))
        height = _LINE * sum(map(len, names)) + _BAR * bars_in_all + _GAP * len(groups)
        legend = _LINE * 1.4 * len(kinds or ())
        figure, axes = plt.subplots(figsize=(width, (height + legend + 3 * _LINE) / _POINTS), layout="constrained")
        place = 0.0
        for name, bars in zip(names, groups.values(), strict=True):
            place += _LINE * len(name)
            axes.text(0, place - 2, "\n".join(name), transform=axes.get_yaxis_transform(), va="bottom")
            for bar in bars:
                drawn = axes.barh(place + _BAR / 2, bar.length - start, _BAR * 0.8, left=start, color=bar.color)
                axes.bar_label(drawn, [bar.said], padding=3)
                place += _BAR
            place += _GAP
        axes.set_ylim(place, 0)
        axes.set_yticks([])
        longest = max(bar.length for bars in groups.values() for bar in bars)
        if start:
            axes.set_xscale("log")
            axes.set_xlim(start, longest * 2)
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.set_xlim(0, longest * 1.2)
        axes.set_xlabel(unit)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if kinds:
            marks = [plt.Rectangle((0, 0), 1, 1, color=color) for color in kinds.values()]
            figure.legend(marks, list(kinds), frameon=False, loc="outside upper left")
        written.append(path.with_stem(path.stem + ending))
        _save(plt, figure, written[-1])
    return written


def _pyplot() -> Any:
    import matplotlib as mpl  # noqa: PLC0415 - only a run that is published draws

    mpl.use("svg")
    mpl.rcParams |= {
        "svg.hashsalt": "langchain-petals",  # equal numbers give equal files
        "svg.fonttype": "none",  # text stays text
        "font.size": 11,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color"), _INK),
    }
    import matplotlib.pyplot as plt  # noqa: PLC0415

    return plt


def _save(plt: Any, figure: Any, path: Path) -> None:
    """Write a figure whose colors follow the reader's color scheme, in the fonts of the reader's system."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    plt.close(figure)
    before, svg, rest = drawn.getvalue().partition("<svg ")
    opening, end, content = rest.partition(">")
    content = content.replace(_INK, "var(--ink)").replace("'DejaVu Sans'", "system-ui")
    path.write_text(f"{before}{svg}{opening}{end}{_STYLE}{content}", encoding="utf-8")
