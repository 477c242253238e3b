"""`langchain-petals swarm`: a swarm on this machine for as long as the command runs."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated, Any

import psutil
import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from langchain_petals.cli.options import DhtPrefix, InitialPeers, Json, connection_fields
from langchain_petals.cli.servers.environment import have_an_environment
from langchain_petals.cli.terminal import make_console, running_command, silence_output, step
from langchain_petals.environment import variables_of
from langchain_petals.errors import LocalSwarmError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from langchain_petals.swarm import LocalServer, LocalSwarm

_LOOK_SECONDS = 1.0  # between two looks at the servers


def swarm(
    *,
    model: Annotated[
        str | None,
        typer.Option(help="Folder or hub name; by default the small model of this package.", show_default=False),
    ] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers to spread the model's blocks over.")] = 2,
    replicas: Annotated[int, typer.Option(min=1, help="Servers that hold each span of blocks.")] = 1,
    hop_delay: Annotated[
        float, typer.Option(min=0, help="Seconds by which each message to and from a server is delayed.")
    ] = 0,
    log_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps the servers' logs.", show_default=False)
    ] = None,
    initial_peers: InitialPeers = None,
    dht_prefix: DhtPrefix = None,
    as_json: Json = False,
    exports: Annotated[
        bool, typer.Option("--exports", help="Write the export lines, and nothing else, to the standard output.")
    ] = False,
) -> None:
    """Run a swarm on this machine until Ctrl-C, and print how programs connect to it.

    The swarm and all its processes end with the command. With --initial-peers its servers join another swarm.
    """
    with running_command():
        if as_json and exports:
            msg = "--json and --exports are two forms of one output; give one of them."
            raise typer.BadParameter(msg)
        is_for_programs = as_json or exports
        console = make_console(stderr=is_for_programs)
        have_an_environment(console)
        from langchain_petals.swarm import LocalSwarm  # noqa: PLC0415 - takes a second

        given = connection_fields(None, initial_peers, dht_prefix)
        with contextlib.ExitStack() as stack:
            with contextlib.nullcontext() if is_for_programs else step(console, "Starting a swarm on this machine"):
                running = stack.enter_context(
                    LocalSwarm(model, servers=servers, replicas=replicas, hop_delay=hop_delay, log_dir=log_dir, **given)
                )
            if as_json:
                typer.echo(json.dumps(_described(running), indent=2))
            elif exports:
                typer.echo("\n".join(_export_lines(running)))
            else:
                _introduce(console, running)
            if is_for_programs:
                silence_output()  # who reads it sees its end, and need not wait for the command's
            _watch(console, running, keeps_logs=log_dir is not None, is_quiet=is_for_programs)


def _described(swarm: LocalSwarm) -> dict[str, Any]:
    return {
        "connection": swarm.connection,
        "environment": variables_of(swarm.connection),
        "servers": [
            {
                "pid": each.pid,
                "peer_id": each.peer_id,
                "blocks": [each.blocks.start, each.blocks.stop],
                "log": str(each.log_path),
            }
            for each in swarm.servers
        ],
    }


def _export_lines(swarm: LocalSwarm) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables_of(swarm.connection).items()]


def _introduce(console: Console, swarm: LocalSwarm) -> None:
    """Print the connection in the three forms that programs take."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in swarm.connection.items())
    parts = {
        "In Python:": ["from langchain_petals import Petals", f"llm = Petals({arguments})"],
        "As JSON (--json writes it alone, with the servers):": [json.dumps(swarm.connection)],
        "As environment variables; Petals() and ChatPetals() read them:": _export_lines(swarm),
    }
    for title, lines in parts.items():
        console.print(f"\n{title}", style="bold", markup=False)
        for line in lines:
            console.print(line, markup=False)
    console.print()


def _watch(console: Console, swarm: LocalSwarm, *, keeps_logs: bool, is_quiet: bool) -> None:
    """Show the servers until the command is ended; where nobody looks, only what changes.

    Raises:
        LocalSwarmError: No server is alive any more.
    """
    began, known = monotonic(), list(swarm.servers)
    is_live = console.is_terminal and not is_quiet
    if not is_live:
        console.print(f"{_count(swarm)}. Ctrl-C ends the swarm.", markup=False)
    with Live(console=console, auto_refresh=False, transient=True) if is_live else contextlib.nullcontext() as live:
        while True:
            alive = [each for each in swarm.servers if each.alive]
            if not alive:
                msg = "All servers have ended." + ("" if keeps_logs else " With --log-dir, their logs are kept.")
                raise LocalSwarmError(msg)
            if live is not None:
                live.update(_state(swarm.servers, monotonic() - began), refresh=True)
            else:
                for each in known:
                    if each in alive:
                        continue
                    console.print(f"The server of {_span(each)} (process {each.pid}) has ended.", markup=False)
            known = alive
            sleep(_LOOK_SECONDS)


def _state(servers: Sequence[LocalServer], seconds: float) -> Table:
    """Return the servers as they are now."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("server", "process", "memory", "state"):
        table.add_column(name, justify="right" if name in {"process", "memory"} else "left")
    for each in servers:
        alive = each.alive
        state = Text("alive", "green") if alive else Text("ended", "bold red")
        table.add_row(_span(each), str(each.pid), _memory(each.pid) if alive else "-", state)
    minutes, rest = divmod(int(seconds), 60)
    table.caption = Text(f"Running for {minutes}:{rest:02d}. Ctrl-C ends the swarm.")
    table.caption_justify = "left"
    return table


def _memory(pid: int) -> str:
    """Return the memory of a server's processes; what they share is counted once, where the system tells that."""
    total = 0
    with contextlib.suppress(psutil.Error):
        server = psutil.Process(pid)
        for process in (server, *server.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                used = process.memory_full_info()
                total += getattr(used, "pss", 0) or used.rss
    return f"{total / 2**20:.0f} MiB" if total else "-"


def _count(swarm: LocalSwarm) -> str:
    number = len(swarm.servers)
    return f"{number} server{'' if number == 1 else 's'} of {swarm.dht_prefix!r} {'is' if number == 1 else 'are'} ready"


def _span(server: LocalServer) -> str:
    return f"blocks {server.blocks.start}:{server.blocks.stop}"
