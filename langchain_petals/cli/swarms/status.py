"""`langchain-petals status`: which servers hold which blocks of a model, and whether it can be used."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from time import sleep
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from langchain_petals.addresses import check_initial_peers, check_prefix, default_prefix, original_repository
from langchain_petals.cli.options import DhtPrefix, InitialPeers, Json, connection_fields
from langchain_petals.cli.plain_text import finite
from langchain_petals.cli.swarms import status_picture, status_verdict
from langchain_petals.cli.terminal import FAILED, make_console, running_command
from langchain_petals.environment import connection_from_environment
from langchain_petals.errors import ModelLoadError, SwarmError
from langchain_petals.hub import key_from_environment
from langchain_petals.progress import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from langchain_petals.engine.network import AnnouncedModel, Network

_HUB = "https://huggingface.co/"  # as servers write it, whatever HF_ENDPOINT says
_MOST_BLOCKS_READ = 2_000  # of all models together, for the list of models


def status(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Folder or hub name of the model; without it, the models of the swarm are listed.",
            show_default=False,
        ),
    ] = None,
    initial_peers: InitialPeers = None,
    dht_prefix: DhtPrefix = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Draw it again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between two drawings of --watch.")] = 5,
    as_json: Json = False,
) -> None:
    """Show the servers of a model on a swarm, and whether it can be used; without MODEL, the models of the swarm.

    Exit code 1: blocks are missing, no model is announced, or the swarm cannot be reached.
    """
    with running_command():
        if model is None and (watch or dht_prefix is not None):
            msg = "--watch and --dht-prefix are about one model; name it."
            raise typer.BadParameter(msg)
        given = connection_from_environment(**connection_fields(model, initial_peers, dht_prefix))
        peers = check_initial_peers(given["initial_peers"] or [])
        if given["dht_prefix"] is not None:
            check_prefix(given["dht_prefix"])
        console = make_console()
        with _joined(peers) as network:
            if model is None:
                _show_models(console, network, as_json=as_json)
                return
            with progress(f"Reading the config of {model}"):
                place = _find(network, model, peers, given["dht_prefix"])
            if watch:
                _watch(console, network, place, every, as_json=as_json)
            else:
                _show(console, network, place, as_json=as_json)


@dataclass(frozen=True)
class _Place:
    """Where a model is: its prefix, the one it has if nobody says otherwise, and its number of blocks."""

    model: str
    initial_peers: list[str]
    prefix: str
    own_prefix: str
    blocks: int


@contextlib.contextmanager
def _joined(peers: list[str]) -> Iterator[Network]:
    """Join a swarm, and leave it at the end."""
    with progress("Joining the swarm"):
        from langchain_petals.engine.loading import join_swarm  # noqa: PLC0415 - loads torch

        network, leave = join_swarm(peers)
    try:
        yield network
    finally:
        leave()


def _find(network: Network, model: str, peers: list[str], prefix: str | None) -> _Place:
    """Return the place of a model by its config.

    Where that cannot be read, the model may be one that the swarm announces, under this name.

    Raises:
        ModelLoadError: The config could not be read, and the swarm does not announce the model.
    """
    from langchain_petals.engine.loading import Connection, locate_model  # noqa: PLC0415 - loads torch
    from langchain_petals.engine.network import survey_models  # noqa: PLC0415 - as above

    try:
        own = locate_model(Connection(model, tuple(peers), key=key_from_environment()))
    except ModelLoadError:
        for each in survey_models(network):
            names = {each.prefix, (each.repository or "").removeprefix(_HUB)}
            if each.prefix == prefix or (prefix is None and names & {model, original_repository(model)}):
                return _Place(model, peers, each.prefix, default_prefix(model), each.blocks)
        raise
    return _Place(model, peers, prefix or own.prefix, own.prefix, own.blocks)


def _show(console: Console, network: Network, place: _Place, *, as_json: bool) -> None:
    with progress("Asking the servers"):
        view = _look(network, place)
    if as_json:
        print_json(status_verdict.as_json(view))
    else:
        console.print(status_picture.picture(view, console))
    if view.survey.missing:
        raise typer.Exit(FAILED)


def _look(network: Network, place: _Place) -> status_verdict.View:
    from langchain_petals.engine.network import survey, survey_models  # noqa: PLC0415 - loads torch

    found = survey(network, place.prefix, place.blocks)
    others = [] if found.servers else [each.prefix for each in survey_models(network)]
    return status_verdict.View(place.model, place.initial_peers, found, place.own_prefix, others)


def _watch(console: Console, network: Network, place: _Place, every: float, *, as_json: bool) -> None:
    """Draw a model's servers until the program is ended; a swarm that is away may come back."""
    is_live = console.is_terminal and not as_json
    with Live(console=console, auto_refresh=False) if is_live else contextlib.nullcontext() as live:
        while True:
            document, drawn = _frame(console, network, place, console.height - 1 if is_live else None)
            if as_json:
                print_json(document, indent=None)
            elif live is not None:
                live.update(drawn, refresh=True)
            else:
                console.print(drawn, "")
            sleep(every)


def _frame(
    console: Console, network: Network, place: _Place, most_lines: int | None
) -> tuple[dict[str, Any], RenderableType]:
    """Return what the swarm looks like now, for programs and as a picture."""
    try:
        view = _look(network, place)
    except SwarmError as error:
        return {"model": place.model, "usable": False, "advice": str(error)}, Text(str(error), "red")
    return status_verdict.as_json(view), status_picture.picture(view, console, most_lines)


def _show_models(console: Console, network: Network, *, as_json: bool) -> None:
    from langchain_petals.engine.network import survey_announcements, survey_models  # noqa: PLC0415 - loads torch

    with progress("Asking which models there are"):
        models = survey_models(network)
        looked_at, blocks = [], 0
        for each in models:
            if blocks + each.blocks <= _MOST_BLOCKS_READ:
                blocks += each.blocks
                looked_at.append(each)
        states = {each.prefix: each for each in survey_announcements(network, looked_at)}
    if as_json:
        described = [
            {
                "dht_prefix": each.prefix,
                "blocks": each.blocks,
                "repository": each.repository,
                "servers": None if (state := states.get(each.prefix)) is None else len(state.servers),
                "missing": None if state is None else state.missing,
            }
            for each in models
        ]
        print_json({"models": described})
    else:
        _list_models(console, models, states)
    if not models:
        raise typer.Exit(FAILED)


def _list_models(console: Console, models: list[AnnouncedModel], states: dict[str, Any]) -> None:
    if not models:
        console.print("The swarm announces no model.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("model", "blocks", "servers", "state"):
        table.add_column(name, justify="right" if name in {"blocks", "servers"} else "left", overflow="fold")
    for each in models:
        state = states.get(each.prefix)
        name = (each.repository or each.prefix).removeprefix(_HUB)
        if state is None:
            table.add_row(Text(name), str(each.blocks), "?", Text("not looked at"))
            continue
        gaps = status_verdict.gaps_text(state.missing)
        told = Text("all blocks announced", "green") if not gaps else Text(f"missing: {gaps}", "red")
        table.add_row(Text(name), str(each.blocks), str(len(state.servers)), told)
    console.print(table, soft_wrap=False)
    console.print("\n`langchain-petals status MODEL` asks the servers of a model whether they answer.", markup=False)


def print_json(document: dict[str, Any], indent: int | None = 2) -> None:
    """Write a JSON document to the standard output, and nothing else; what is not ASCII is escaped."""
    typer.echo(json.dumps(finite(document), indent=indent))
