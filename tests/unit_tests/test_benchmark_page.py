"""The page about benchmarks: it shows the published results, the decisive ones first."""

from __future__ import annotations

from benchmarks.plots import trip_bars
from benchmarks.report import (
    BEGIN,
    DECISIVE,
    END,
    PAGE,
    RESULTS,
    SPEED,
    about_trips,
    decisive_lines,
    in_order,
    read_results,
    results_text,
)

PUBLISHED = read_results(RESULTS)


def written_part(page: str) -> str:
    return page.partition(BEGIN)[2].partition(END)[0].strip()


def test_the_page_shows_the_published_results() -> None:
    assert written_part(PAGE.read_text(encoding="utf-8")) == results_text(PUBLISHED), "run python -m benchmarks publish"


def test_the_page_about_speed_has_the_published_figures() -> None:
    bars = trip_bars(in_order(part.lines for part in PUBLISHED.values()))
    assert written_part(SPEED.read_text(encoding="utf-8")) == about_trips(bars), "run python -m benchmarks publish"


def test_every_decisive_line_was_measured() -> None:
    assert len(decisive_lines(PUBLISHED)) == len(DECISIVE)


def test_lines_that_a_user_does_not_decide_by_are_folded_away() -> None:
    shown, _, folded = results_text(PUBLISHED).partition("<details")
    lines = [line for part in PUBLISHED.values() for line in part.lines]
    assert shown.count("\n| ") == len(DECISIVE) + 2
    assert all(f"| {line.measured} |" in folded for line in lines)
