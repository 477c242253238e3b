"""The offer to make the servers' environment, for commands that start a swarm on this machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import typer

from langchain_petals.cli.servers.server import make_environment
from langchain_petals.cli.terminal import can_ask
from langchain_petals.errors import PetalsNotInstalledError

if TYPE_CHECKING:
    from rich.console import Console


def have_an_environment(console: Console, *, yes: bool = False, command: str | None = None) -> None:
    """Make the servers' environment if there is none, and somebody agrees.

    Args:
        console: Where to ask, and to show the steps.
        yes: Do not ask.
        command: A command that makes it without a question; None if there is none but `server install`.

    Raises:
        PetalsNotInstalledError: There is none, and nobody to ask.
        typer.Exit: Somebody did not agree.
    """
    from langchain_petals import swarm  # noqa: PLC0415

    if swarm.found_python() is not None:
        return
    if not yes:
        if not can_ask(console):
            msg = "No petals was found to run servers with. Run `langchain-petals server install` first" + (
                "." if command is None else f", or `{command}`, which does it."
            )
            raise PetalsNotInstalledError(msg)
        console.print(
            "The servers run Petals, which needs old versions of other packages. So it gets an environment of\n"
            f"its own, in {swarm.environment_folder()}.\n"
            "This takes some minutes and 1.5 GB (with pip on Linux up to 5 GB, since pip takes torch's CUDA build).\n"
            "`langchain-petals server uninstall` removes it.",
            markup=False,
        )
        with contextlib.redirect_stdout(console.file):  # what is asked must not be in the output, which may be JSON
            agreed = typer.confirm("Install it now?", default=True)
        if not agreed:
            raise typer.Exit(1)
    make_environment(console)
    console.print()
