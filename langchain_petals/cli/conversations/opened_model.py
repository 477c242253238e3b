"""The chat model that a command line names, on its swarm or on one of this machine."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import typer

from langchain_petals.cli.options import connection_fields
from langchain_petals.cli.servers.environment import have_an_environment
from langchain_petals.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from langchain_petals import ChatPetals


@contextlib.contextmanager
def opened_model(
    console: Console,
    model: str | None,
    initial_peers: list[str] | None,
    dht_prefix: str | None,
    *,
    local: bool,
    **fields: Any,
) -> Iterator[ChatPetals]:
    """Load the model for as long as the block runs.

    Args:
        console: Where to ask whether to make the servers' environment, if a swarm of this machine needs one.
        model: Folder or hub name; None for the default.
        initial_peers: Values of `--initial-peers`.
        dht_prefix: Value of `--dht-prefix`.
        local: Whether to start a swarm on this machine, with this model or the small one.
        fields: Further fields of `ChatPetals`; None means that there is none.

    Raises:
        typer.BadParameter: A swarm of this machine was asked for, and another one named.
        PetalsError: The model could not be loaded.
    """
    if local and (initial_peers or dht_prefix):
        msg = "--local starts a swarm of its own; leave out --initial-peers and --dht-prefix."
        raise typer.BadParameter(msg)
    with contextlib.ExitStack() as stack:
        if local:
            have_an_environment(console)
        with progress("Starting"):
            from langchain_petals import ChatPetals  # noqa: PLC0415 - loads torch
        if local:
            from langchain_petals.swarm import LocalSwarm  # noqa: PLC0415 - only here

            connection = stack.enter_context(LocalSwarm(model)).connection
        else:
            connection = connection_fields(model, initial_peers, dht_prefix)
        given = {name: value for name, value in fields.items() if value is not None}
        yield ChatPetals(**connection, **given, preload=True)
