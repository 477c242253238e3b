"""`langchain-petals server`: a server on this machine, and the environment in which servers run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from langchain_petals.cli.servers.server_run import run
from langchain_petals.cli.terminal import make_console, running_command, step
from langchain_petals.progress import progress

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from rich.console import Console

    from langchain_petals.swarm import Installation

app = typer.Typer(help="A server on this machine, and the environment in which servers run.", no_args_is_help=True)
app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,  # Petals has more
        "token_normalize_func": lambda name: name.replace("_", "-"),  # as Petals spells them
    },
    options_metavar="[MODEL] [OPTIONS]",
)(run)


@app.command()
def install(
    python: Annotated[str | None, typer.Option(help="Interpreter to use, Python 3.10 to 3.12.")] = None,
    petals: Annotated[
        str | None, typer.Option(help="2.2.0.post1, the default; or the folder or address of git main or a fork.")
    ] = None,
) -> None:
    """Make an environment with Petals for the servers of LocalSwarm; nothing else on this machine is changed."""
    with running_command():
        make_environment(make_console(), petals, python)


@app.command()
def uninstall() -> None:
    """Remove the environment that `install` has made."""
    from langchain_petals import swarm  # noqa: PLC0415

    with running_command():
        folder = swarm.environment_folder()
        make_console().print(f"Removed {folder}." if swarm.uninstall() else "There is nothing to remove.", markup=False)


@app.command()
def info() -> None:
    """Show which interpreter runs the servers of LocalSwarm, and which Petals it has."""
    from langchain_petals import swarm  # noqa: PLC0415

    with running_command():
        console, python, made = make_console(), swarm.servers_python(), swarm.installed()
        if made is not None and made.interpreter == python:
            _describe(console, made)
            return
        with progress(f"Importing Petals with {python}") as say:
            versions = swarm.check(python, say)
        for name, value in {"path": python, **versions}.items():
            console.print(f"{name:13}{value}", markup=False)


def make_environment(console: Console, petals: str | None = None, python: str | None = None) -> None:
    """Make the servers' environment, and show its steps and what was made.

    Args:
        console: Where to show them.
        petals: Which Petals: a version, folder or address; None is the released one.
        python: The interpreter to use; None looks for one.
    """
    from langchain_petals import swarm  # noqa: PLC0415

    def named(what: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        return step(console, what)

    _describe(console, swarm.install(petals, python, step=named))


def _describe(console: Console, made: Installation) -> None:
    console.print(
        f"Petals {made.petals}"
        + ("" if made.source == made.petals else f" from {made.source}")
        + f", Python {made.python}, {made.size / 1e9:.1f} GB, in {made.folder}"
        + ("; `langchain-petals server install` brings it up to date" if made.is_outdated else ""),
        markup=False,
    )
