"""`langchain-petals doctor`: what is there, what does not fit, and the command that mends it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from langchain_petals.cli.options import DhtPrefix, InitialPeers, Json, ModelArgument, connection_fields
from langchain_petals.cli.plain_text import harmless
from langchain_petals.cli.swarms import doctor_checks, swarm_checks
from langchain_petals.cli.swarms.status import print_json
from langchain_petals.cli.terminal import FAILED, make_console, running_command
from langchain_petals.environment import VARIABLES
from langchain_petals.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from langchain_petals.cli.swarms.doctor_checks import Finding

_STYLES = {"ok": "green", "note": "yellow", "wrong": "bold red"}


def doctor(
    model: ModelArgument = None,
    initial_peers: InitialPeers = None,
    dht_prefix: DhtPrefix = None,
    *,
    as_json: Json = False,
) -> None:
    """Look for what is wrong: versions, hub, swarm, servers' environment; with MODEL, also whether it can be used.

    Exit code 1: something is wrong. What is merely worth knowing is a note.
    """
    with running_command():
        console, found = make_console(), []
        for finding in _findings(connection_fields(model, initial_peers, dht_prefix)):
            found.append(finding)
            if not as_json:
                _show(console, finding)
        wrong = sum(each.state == "wrong" for each in found)
        if as_json:
            print_json({"ok": not wrong, "findings": [asdict(each) for each in found]})
        else:
            console.print()
            told = f"{wrong} thing is" if wrong == 1 else f"{wrong} things are"
            console.print(
                f"{told} wrong." if wrong else "Nothing is wrong.", style="bold red" if wrong else "bold green"
            )
        if wrong:
            raise typer.Exit(FAILED)


def _findings(given: dict[str, Any]) -> Iterator[Finding]:
    """Yield what each check finds, as it finds it."""
    yield doctor_checks.check_python()
    with progress("Looking at the packages"):
        packages = [*doctor_checks.check_packages(), doctor_checks.check_p2pd()]
    yield from packages
    yield doctor_checks.check_key()
    with progress("Asking the hub"):
        hub = doctor_checks.check_hub(is_needed=not _is_folder(given))
    yield hub
    with progress("Trying the servers' environment"):
        servers = doctor_checks.check_servers()
    yield servers
    yield from swarm_checks.check_swarm(given)


def _is_folder(given: dict[str, Any]) -> bool:
    model = given.get("model") or os.environ.get(VARIABLES["model"], "").strip()
    return bool(model) and Path(model).is_dir()


def _show(console: Console, finding: Finding) -> None:
    """Show a finding: on a terminal with its lines below each other, in a file on one line."""
    lines = [Text(harmless(f"{finding.subject}: {finding.text}"))]
    if finding.mend is not None:
        lines.append(Text(harmless(finding.mend), "bold"))
    state = Text(f"{finding.state:5}", _STYLES[finding.state])
    if console.is_terminal:
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        table.add_row(state, Group(*lines))
        console.print(table, soft_wrap=False)
        return
    for number, line in enumerate(lines):
        console.print(Text(" " * len(state)) if number else state, line)
