"""Writes the results: a table on the terminal, JSON, and plots and tables of the docs."""

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

from benchmarks.comparison import Comparison, at
from benchmarks.plots import SHOWN_DELAY, draw_gains, draw_trips, trip_bars
from benchmarks.trips import ROLLING_BACK, TRIP_FOR_EACH
from langchain_petals.swarm import check, servers_python

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.plots import TripBars

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
GAINS = ROOT / "docs" / "benchmarks.svg"
TRIPS = ROOT / "docs" / "trips.svg"
PAGE = ROOT / "docs" / "benchmarks.md"
SPEED = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- begin: written by benchmarks -->", "<!-- end -->"
COLUMNS = ("measured", "ours", "against", "theirs", "ratio", "target", "reached")
DECISIVE_COLUMNS = ("what", "this package", "otherwise", "ratio")

_FAR = at(SHOWN_DELAY)
DECISIVE = (
    ("one stream of 128 tokens", "petals' model.generate"),
    ("16 prompts, 64 tokens each: batch", "langchain_community's Petals.batch"),
    (f"16 prompts, 8 tokens each{_FAR}: batch", "one after the other"),
    ("first token of a 1,500-token prompt, 128k vocabulary, hidden size 1,024", "petals' model.generate"),
    (f"first token of turn 10 of 2,000 tokens{_FAR}", "the same, session_cache=0"),
    (f"a forced tool call{_FAR}", TRIP_FOR_EACH),
    (f"a forced tool call{_FAR}, {ROLLING_BACK}", TRIP_FOR_EACH),
    (f"an object with 6 fields{_FAR}", TRIP_FOR_EACH),
    (f"an object with 6 fields{_FAR}, {ROLLING_BACK}", TRIP_FOR_EACH),
    (f"a list of 5 objects{_FAR}, {ROLLING_BACK}", TRIP_FOR_EACH),
    (f"a story{_FAR}", TRIP_FOR_EACH),
    ("time per token under a JSON schema", "without one"),
    (
        "one stream of 128 tokens, both its servers killed one after the other: time lost (at most step_timeout + 2 s)",
        "bound",
    ),
)
"""The lines that a user decides by: what was measured, and against what. The page folds the others away."""


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


def _decisive_cells(line: Comparison) -> tuple[str, ...]:
    measured, ours, against, theirs, ratio, *_ = _cells(line)
    other = f"at most {theirs}" if against == "bound" else f"{theirs} ({against.removeprefix('the same, ')})"
    return measured, ours, other, ratio


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
    return [RESULTS, *write_pages(published)]


def write_pages(published: Mapping[str, Part]) -> list[Path]:
    """Write plots and tables of published results to the docs, and return the files' paths."""
    fill(PAGE, results_text(published))
    written = [PAGE, *draw_gains(decisive_lines(published), GAINS)]
    compared = trip_bars(_lines(published))
    if compared:
        fill(SPEED, about_trips(compared))
        written += [SPEED, *draw_trips(compared, TRIPS)]
    return written


def results_text(published: Mapping[str, Part]) -> str:
    """Return the part of the page about benchmarks that the results decide."""
    lines = _lines(published)
    compared = trip_bars(lines)
    said = [
        *([about_trips(compared)] if compared else []),
        markdown(DECISIVE_COLUMNS, map(_decisive_cells, decisive_lines(published))),
        _about_targets(lines),
        *_folded_parts(published),
        _folded("Measured on", _machines(published)),
    ]
    return "\n\n".join(said)


def decisive_lines(published: Mapping[str, Part]) -> list[Comparison]:
    """Return the lines that a user decides by, as far as they were measured."""
    by_name = {(line.measured, line.against): line for line in _lines(published)}
    return [by_name[name] for name in DECISIVE if name in by_name]


def _lines(published: Mapping[str, Part]) -> list[Comparison]:
    return in_order(part.lines for part in published.values())


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
        return f"{next(iter(names))}."
    return "\n".join(f"- {machine} ({', '.join(of)})." for machine, of in names.items())


def about_trips(compared: Mapping[str, TripBars]) -> str:
    """Return a sentence about the first bars of the plot of trips."""
    task, bars = next(iter(compared.items()))
    now = f"{bars.now:.1f} s now"
    if bars.rolling_back is not None:
        now += f", and {bars.rolling_back:.1f} s if the servers can roll back"
    before = (
        f"On a swarm with {SHOWN_DELAY * 1000:g} ms a hop, {task} took {bars.each:.1f} s with a trip for each token."
    )
    return f"{before} It takes {now}."


def _about_targets(lines: Sequence[Comparison]) -> str:
    """Return how many targets were reached, and those that were missed."""
    targets = [line for line in lines if line.target]
    missed = [
        f"{line.measured} ({_cells(line)[4] or f'{_number(line.ours)} {line.unit}'}, target {line.target})"
        for line in targets
        if not line.reached
    ]
    said = f"{len(targets) - len(missed)} of {len(targets)} targets were reached."
    return f"{said} Missed: {'; '.join(missed)}." if missed else said


def _folded_parts(published: Mapping[str, Part]) -> list[str]:
    """Return a folded table for each measurement, and one for the sessions that all of them left open."""
    tables = {name: [line for line in part.lines if line.unit != "tokens"] for name, part in published.items()}
    tables["attention cache left open"] = [
        line for part in published.values() for line in part.lines if line.unit == "tokens"
    ]
    return [
        _folded(f"{name.replace('-', ' ')} ({len(lines)})", markdown(COLUMNS, map(_cells, lines)))
        for name, lines in tables.items()
        if lines
    ]


def _folded(title: str, text: str) -> str:
    return f"<details markdown>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def fill(page: Path, text: str, *, part: str = "") -> None:
    """Replace the text between the markers of a page; a further part of it has its name in the first one."""
    begin = BEGIN.replace(": ", f": {part}, ") if part else BEGIN
    before, rest = page.read_text(encoding="utf-8").split(begin)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{begin}\n\n{text}\n\n{END}{after}", encoding="utf-8")
