"""Arguments and options that several commands have, and the connection that they name.

typer evaluates the annotations of commands, so modules import these names when they run. A command that was given no
model, no peers or no prefix passes none: `Petals` and `ChatPetals` have defaults.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer


def checked_text(text: str | None) -> str | None:
    """Return a text of the command line.

    Raises:
        typer.BadParameter: It holds bytes that are no UTF-8, as of a file's name; no model could read it.
    """
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        msg = f"it is no UTF-8 text (character {error.start})."
        raise typer.BadParameter(msg) from None
    return text


ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Folder or hub name of the model; without it, the one that LANGCHAIN_PETALS_MODEL names.",
        show_default=False,
    ),
]

InitialPeers = Annotated[
    list[str] | None,
    typer.Option(
        "--initial-peers",
        metavar="ADDRESS",
        help="Address of a peer of a private swarm. Give it again, or separate addresses by commas, for several.",
        show_default=False,
    ),
]

DhtPrefix = Annotated[
    str | None,
    typer.Option(
        "--dht-prefix",
        metavar="PREFIX",
        help="Name under which the swarm announces the model's blocks, if not the usual one: for a folder its name.",
        show_default=False,
    ),
]

Local = Annotated[bool, typer.Option("--local", help="Start a swarm on this machine, by default with a small model.")]

Json = Annotated[bool, typer.Option("--json", help="Write JSON, and nothing else, to the standard output.")]

System = Annotated[
    str | None,
    typer.Option(
        "--system", metavar="TEXT", help="Tell the model who it is.", show_default=False, callback=checked_text
    ),
]

Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature", metavar="NUMBER", help="0 takes the likeliest tokens; 0.7 if not given.", show_default=False
    ),
]

MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens", metavar="NUMBER", min=1, help="Most tokens of an answer; 256 if not given.", show_default=False
    ),
]


def connection_fields(
    model: str | None = None, initial_peers: list[str] | None = None, dht_prefix: str | None = None
) -> dict[str, Any]:
    """Return the connection that a command line names, as keyword arguments of `Petals` and `ChatPetals`.

    Args:
        model: Folder or hub name; None if none was given.
        initial_peers: Values of `--initial-peers`, each with one or more addresses.
        dht_prefix: Value of `--dht-prefix`.

    Returns:
        `model`, `initial_peers` and `dht_prefix`, but only those that were given.

    Raises:
        typer.BadParameter: There is no address in `--initial-peers`. The public swarm is not what was meant.

    Example:
        >>> from langchain_petals.cli.options import connection_fields
        >>> connection_fields("folder", ["/ip4/10.0.0.1/tcp/31330/p2p/Qm1,/ip4/10.0.0.2/tcp/31330/p2p/Qm2"])["model"]
        'folder'
    """
    peers = [peer for value in initial_peers or () for peer in value.replace(",", " ").split()]
    if initial_peers and not peers:
        msg = "--initial-peers has no address. Leave it out for the public swarm."
        raise typer.BadParameter(msg)
    given = {"model": model, "initial_peers": peers if initial_peers else None, "dht_prefix": dht_prefix}
    return {name: value for name, value in given.items() if value is not None}
