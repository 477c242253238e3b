"""`python -m benchmarks`: measure, print a table, write JSON and a plot; exit with 1 if a target is missed."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from benchmarks import client_share, length_spread, slow_uplink
from benchmarks.client_costs import Version, client_costs
from benchmarks.effort import QUICK, Effort
from benchmarks.measurements import MEASUREMENTS
from benchmarks.report import RESULTS, ROOT, fill, in_order, markdown, publish, read_results, table, write_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.comparison import Comparison

app = typer.Typer(add_completion=False)
console = Console()
if not console.is_terminal:
    console.width = 180  # the default of 80 columns is too narrow for the table


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    only: Annotated[list[str] | None, typer.Option(help=f"Run only this one: {', '.join(MEASUREMENTS)}.")] = None,
    *,
    quick: Annotated[bool, typer.Option("--quick", help="One short round of each, to see that it works.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Publish also with --only; other parts keep theirs.")] = False,
    rolling_back: Annotated[
        Path | None,
        typer.Option(
            envvar="LANGCHAIN_PETALS_ROLLING_BACK_PYTHON",
            help="Interpreter of servers that can roll back (Petals 2.3), for the rows with such servers.",
        ),
    ] = None,
) -> None:
    """Compare this package with petals' own client and with langchain_community's class, on local swarms.

    A run without options is written to benchmarks/results.json and docs/; others are only printed.
    """
    if context.invoked_subcommand is not None:
        return
    unknown = set(only or ()) - set(MEASUREMENTS)
    if unknown:
        msg = f"There is no {', '.join(sorted(unknown))}; there are {', '.join(MEASUREMENTS)}."
        raise typer.BadParameter(msg, param_hint="--only")
    if write and quick:
        msg = "A quick run measures too little to be published; leave out one of both."
        raise typer.BadParameter(msg, param_hint="--write")
    effort = replace(QUICK if quick else Effort(), rolling_back=rolling_back)
    parts: dict[str, list[Comparison]] = {}
    for name in only or MEASUREMENTS:
        console.print(f"==> {name}", style="bold")
        for line in MEASUREMENTS[name](effort):
            console.print(f"    {line.measured}: {line.ours:.4g} {line.unit}", "" if line.reached else "MISSED")
            parts.setdefault(name, []).append(line)
    lines = in_order(parts.values())
    console.print(table(lines))
    if write or not (only or quick):
        for path in publish(parts, whole=not only):
            console.print(f"Wrote {path}")
    if not all(line.reached for line in lines):
        raise typer.Exit(1)


@app.command("publish")
def publish_again() -> None:
    """Write plots and tables of docs/ from benchmarks/results.json, without measuring."""
    for path in write_pages(read_results(RESULTS)):
        console.print(f"Wrote {path}")


@app.command("length-spread")
def measure_length_spread(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds where hops are not delayed.")] = 3,
    slow_rounds: Annotated[int, typer.Option(help="Rounds where they are.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Put the table into docs/engine.md.")] = False,
) -> None:
    """Measure prompts of different lengths in one session and in several."""
    rows = _print(length_spread.HEADER, length_spread.lines(rounds, slow_rounds))
    if write:
        fill(ROOT / "docs" / "engine.md", markdown(length_spread.HEADER, rows))


@app.command("rules")
def measure_rules(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds where hops are not delayed.")] = 7,
    slow_rounds: Annotated[int, typer.Option(help="Rounds where they are.")] = 3,
    write: Annotated[bool, typer.Option("--write", help="Put the table into docs/engine.md.")] = False,
) -> None:
    """Measure prompts of different lengths as the scheduler divides them, with the fixed rule and the measured one."""
    rows = _print(length_spread.RULES_HEADER, length_spread.rule_lines(rounds, slow_rounds))
    if write:
        fill(ROOT / "docs" / "engine.md", markdown(length_spread.RULES_HEADER, rows), part="rules")


@app.command("client-share")
def measure_client_share(
    *,
    rounds: Annotated[int, typer.Option(help="Rounds of each line.")] = 5,
    threads: Annotated[int, typer.Option(help="Threads that multiply.")] = 1,
    vocabulary: Annotated[list[int] | None, typer.Option(help="Only this many tokens.")] = None,
) -> None:
    """Measure the client's own share of a token with a hidden size of 8,192; needs 5 GB of memory."""
    _print(client_share.HEADER, client_share.lines(rounds, threads, vocabulary or client_share.VOCABULARIES))


@app.command("slow-uplink")
def measure_slow_uplink() -> None:
    """Measure the first token of a long prompt where the client sends 10 Mbit/s, and what compression would change."""
    _print(slow_uplink.HEADER, slow_uplink.lines())
    console.print()
    _print(slow_uplink.COMPRESSION_HEADER, slow_uplink.compressions())


def _print(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Sequence[str]]:
    """Print a Markdown table, each line when it is there; return its rows."""
    printed = []
    for cells in chain((header, ("---",) * len(header)), rows):
        console.print("|", " | ".join(cells), "|")
        printed.append(cells)
    return printed[2:]


@app.command("client-costs")
def measure_client_costs(
    old: Annotated[Path, typer.Argument(help="Checkout of an older version.")],
    python: Annotated[str, typer.Argument(help="Interpreter of the older version's environment.")],
    *,
    rounds: Annotated[int, typer.Option(help="Programs of each version.")] = 5,
) -> None:
    """Compare the import, connection, end and memory of a client program with an older version's."""
    console.print(table(list(client_costs(Effort(rounds=rounds), Version(old, python)))))


if __name__ == "__main__":
    app()
