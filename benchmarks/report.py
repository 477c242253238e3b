"""Writes the results: a table on the terminal, JSON, and plots and table of the docs."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks.comparison import Comparison
from benchmarks.plots import SHOWN_DELAY, draw_gains, draw_trips, trip_bars
from langchain_petals.swarm import check, servers_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.plots import TripBars

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
GAINS = ROOT / "docs" / "benchmarks.svg"
TRIPS = ROOT / "docs" / "trips.svg"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- begin: written by benchmarks -->", "<!-- end -->"
COLUMNS = ("measured", "ours", "against", "theirs", "ratio", "target", "reached")


@dataclass(frozen=True)
class Part:
    """The published results of one measurement.

    Attributes:
        machine: Date, machine and versions.
        lines: The lines of the table.
    """

    machine: dict[str, Any]
    lines: list[Comparison]


def table(lines: Sequence[Comparison]) -> Table:
    shown = Table(title="Medians")
    for name in COLUMNS:
        shown.add_column(name, justify="right" if name in {"ours", "theirs", "ratio"} else "left")
    for line in lines:
        shown.add_row(*_cells(line), style="" if line.reached else "bold red")
    return shown


def _cells(line: Comparison) -> tuple[str, ...]:
    our_trips, their_trips = ("", "") if line.trips is None else (f", {number:g} trips" for number in line.trips)
    return (
        line.measured,
        f"{_number(line.ours)} {line.unit}{our_trips}",
        line.against,
        f"{_number(line.theirs)} {line.unit}{their_trips}",
        "" if line.ratio is None else f"{line.ratio:.2f} x",
        line.target or "reported",
        ("yes" if line.reached else "NO") if line.target else "",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def in_order(parts: Iterable[Sequence[Comparison]]) -> list[Comparison]:
    """Return the lines of all parts; those about sessions that were left open come last, since they are alike."""
    return sorted((line for lines in parts for line in lines), key=lambda line: line.unit == "tokens")


def publish(parts: Mapping[str, Sequence[Comparison]], *, whole: bool) -> list[Path]:
    """Write the results to the docs' files, and return the files' paths.

    Args:
        parts: The lines of each measurement, by its name.
        whole: Whether these are all measurements. If not, the others keep their published results, and their machines.
    """
    machine = _machine()
    published = {} if whole else read_results(RESULTS)
    published |= {name: Part(machine, list(lines)) for name, lines in parts.items()}
    document = {
        name: {"machine": part.machine, "results": [*map(asdict, part.lines)]} for name, part in published.items()
    }
    RESULTS.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = in_order(part.lines for part in published.values())
    draw_gains(lines, GAINS)
    written = [RESULTS, GAINS, PAGE]
    compared = trip_bars(lines)
    if compared:
        draw_trips(compared, TRIPS)
        written.append(TRIPS)
    said = [
        _machines(published),
        *([_about_trips(compared)] if compared else []),
        markdown(COLUMNS, map(_cells, lines)),
    ]
    fill(PAGE, "\n\n".join(said))
    return written


def read_results(path: Path) -> dict[str, Part]:
    """Return the published results of each measurement."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Part(part["machine"], [Comparison(**line) for line in part["results"]]) for name, part in document.items()
    }


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "petals": check(servers_python(), lambda _: None)["petals"],
        **{name: importlib.metadata.version(name) for name in ("hivemind", "torch", "langchain-core")},
    }


def _machines(parts: Mapping[str, Part]) -> str:
    """Return what the results were measured on, with the names of the parts if there were several machines or dates."""
    names: dict[str, list[str]] = {}
    for name, part in parts.items():
        names.setdefault(", ".join(f"{key} {value}" for key, value in part.machine.items()), []).append(name)
    if len(names) == 1:
        return f"Measured on: {next(iter(names))}."
    return "\n".join(["Measured on:", "", *(f"- {machine} ({', '.join(of)})." for machine, of in names.items())])


def _about_trips(compared: Mapping[str, TripBars]) -> str:
    """Return the picture of trips, and a sentence about its first bars."""
    task, bars = next(iter(compared.items()))
    delay = f"{SHOWN_DELAY * 1000:g} ms"
    picture = f"![Seconds for an answer at {delay} a hop]({TRIPS.name})"
    now = f"{bars.now:.1f} s now"
    if bars.rolling_back is not None:
        now += f", and {bars.rolling_back:.1f} s if the servers can roll back"
    before = f"On a swarm with {delay} a hop, {task} took {bars.each:.1f} s with a trip for each token."
    return f"{picture}\n\n{before} It takes {now}."


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def fill(page: Path, text: str) -> None:
    """Replace the text between the markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
