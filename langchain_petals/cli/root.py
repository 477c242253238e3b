"""All commands together."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from langchain_petals.cli.conversations import ask, chat
from langchain_petals.cli.servers import demo, server
from langchain_petals.cli.swarms import doctor, status, swarm
from langchain_petals.cli.terminal import open_streams

app = typer.Typer(
    help="Language models on a Petals swarm, for LangChain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(server.app, name="server")
app.command()(chat.chat)
app.command()(ask.ask)
app.command()(status.status)
app.command()(swarm.swarm)
app.command()(doctor.doctor)
app.command()(demo.demo)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        try:
            version = importlib.metadata.version("langchain-petals")
        except importlib.metadata.PackageNotFoundError:
            version = "is not installed, but found on the path; so its version is not known"
        typer.echo(f"langchain-petals {version}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[  # noqa: ARG001 - its callback uses it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Language models on a Petals swarm, for LangChain."""
    open_streams()
