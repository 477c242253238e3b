"""Writes the results: a table on the terminal, JSON, and plot and table of the docs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from langchain_petals.swarm import check, servers_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.comparison import Comparison

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PLOT = ROOT / "docs" / "benchmarks.svg"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: written by benchmarks -->", "<!-- end -->"
COLUMNS = ("measured", "ours", "against", "theirs", "ratio", "target", "reached")


def table(lines: Sequence[Comparison]) -> Table:
    shown = Table(title="Medians")
    for name in COLUMNS:
        shown.add_column(name, justify="right" if name in {"ours", "theirs", "ratio"} else "left")
    for line in lines:
        shown.add_row(*_cells(line), style="" if line.reached else "bold red")
    return shown


def _cells(line: Comparison) -> tuple[str, ...]:
    return (
        line.measured,
        f"{_number(line.ours)} {line.unit}",
        line.against,
        f"{_number(line.theirs)} {line.unit}",
        "" if line.ratio is None else f"{line.ratio:.2f} x",
        line.target or "reported",
        ("yes" if line.reached else "NO") if line.target else "",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def publish(lines: Sequence[Comparison]) -> list[Path]:
    """Write the results to the docs' files, and return their paths."""
    machine = _machine()
    document = {"machine": machine, "results": [asdict(line) for line in lines]}
    RESULTS.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _draw(lines)
    _fill_page(lines, machine)
    return [RESULTS, PLOT, PAGE]


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "petals": check(servers_python(), lambda _: None)["petals"],
        **{name: importlib.metadata.version(name) for name in ("hivemind", "torch", "langchain-core")},
    }


def _draw(lines: Sequence[Comparison]) -> None:
    """Draw a bar for each line that compares seconds."""
    import matplotlib as mpl  # noqa: PLC0415 - only a complete run draws

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "langchain-petals"  # equal numbers give equal files
    import matplotlib.pyplot as plt  # noqa: PLC0415

    gains = [line for line in lines if line.unit == "s" and line.ratio is not None][::-1]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(gains) + 1), layout="constrained")
    ratios = [line.ratio for line in gains if line.ratio is not None]
    labels = [f"{line.measured}\nagainst {line.against}" for line in gains]
    bars = axes.barh(labels, [ratio - 1 for ratio in ratios], left=1, color="#4c78a8")
    axes.bar_label(bars, [f"{ratio:.3g} x" for ratio in ratios], padding=3)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(1, *ratios) * 0.9, 2 * max(ratios))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("times faster (logarithmic)")
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PLOT, metadata={"Date": None})
    plt.close(figure)


def _fill_page(lines: Sequence[Comparison], machine: dict[str, Any]) -> None:
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    fill(PAGE, f"Measured on: {where}.\n\n{markdown(COLUMNS, map(_cells, lines))}")


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def fill(page: Path, text: str) -> None:
    """Replace the text between the markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
