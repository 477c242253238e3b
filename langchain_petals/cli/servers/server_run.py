"""`langchain-petals server run`: one real server of a private or the public swarm."""

from __future__ import annotations

import json
import sys
import time
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_petals.cli.terminal import make_console, running_command, show_error, step
from langchain_petals.errors import InvalidRequestError
from langchain_petals.progress import is_on, progress, stepped_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_petals.cli.servers.server_connection import Connection
    from langchain_petals.cli.servers.server_options import Order
    from langchain_petals.swarm import ForegroundServer

    Event = dict[str, Any]

WRONG_USAGE = 2
"""Exit code if the options cannot be used."""

_SWARM, _SHARE, _PETALS = "Which swarm, and under which address", "What to serve", "Petals' own options"
_FACTS = ("device", "torch_dtype", "quant_type", "throughput", "reachable")
_PUBLIC = """\
Neither --new-swarm nor --initial-peers: this server joins the public swarm.
Anyone may use it, without telling you, and every peer sees its address. Petals asks speedtest.net how fast your
connection is, and health.petals.dev whether others can reach it. Ctrl-C takes it out of the swarm again."""

_UNREACHABLE = """\
Other servers cannot reach this one: a router or a firewall is between. Forward a TCP port to this machine, or open it,
and start the server again with --port and, behind a router, --announce. Clients cannot use it until then."""
_RELAYED = """\
Others cannot reach this server directly: a router or a firewall is between. Petals looks for relays, which are slow. If
you can, forward a TCP port to this machine, and start the server again with --port and --announce."""


def run(
    context: typer.Context,
    *,
    initial_peers: Annotated[
        list[str] | None,
        typer.Option(help="Address of a swarm to join; may be repeated.", rich_help_panel=_SWARM),
    ] = None,
    new_swarm: Annotated[bool, typer.Option("--new-swarm", help="Start a new swarm.", rich_help_panel=_SWARM)] = False,
    host: Annotated[
        str | None, typer.Option(help="Listen at this address of the machine; else at all.", rich_help_panel=_SWARM)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Listen at this port; else at a free one.", rich_help_panel=_SWARM),
    ] = None,
    announce: Annotated[
        list[str] | None,
        typer.Option(
            help="Address under which others reach this machine, HOST or HOST:PORT, if it is not its own: that of the "
            "router that forwards the port. May be repeated.",
            rich_help_panel=_SWARM,
        ),
    ] = None,
    identity_path: Annotated[
        Path | None,
        typer.Option(help="File of the server's identity, made if missing: keeps its address.", rich_help_panel=_SWARM),
    ] = None,
    blocks: Annotated[
        str | None,
        typer.Option(help="A span, as 0:12, or how many; else what fits in memory.", rich_help_panel=_SHARE),
    ] = None,
    dht_prefix: Annotated[
        str | None,
        typer.Option(help="Name under which the blocks are announced; else the model's.", rich_help_panel=_SHARE),
    ] = None,
    throughput: Annotated[
        str | None, typer.Option(help="Tokens/s to announce; else they are measured.", rich_help_panel=_PETALS)
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu.", rich_help_panel=_PETALS)] = None,
    torch_dtype: Annotated[
        str | None, typer.Option(help="float16, bfloat16 or float32.", rich_help_panel=_PETALS)
    ] = None,
    quant_type: Annotated[str | None, typer.Option(help="none, int8 or nf4.", rich_help_panel=_PETALS)] = None,
    attn_cache_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of all sessions together.", rich_help_panel=_PETALS)
    ] = None,
    inference_max_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one session.", rich_help_panel=_PETALS)
    ] = None,
    num_handlers: Annotated[
        int | None, typer.Option(min=1, help="Processes that answer requests.", rich_help_panel=_PETALS)
    ] = None,
    max_disk_space: Annotated[str | None, typer.Option(help="For downloads, as 50GB.", rich_help_panel=_PETALS)] = None,
    python: Annotated[Path | None, typer.Option(help="Interpreter with petals; else that of `server install`.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show Petals' log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document when the server is ready.")] = False,
) -> None:
    """Run one server of MODEL, a folder or a name on the hub, until Ctrl-C; without MODEL, of the bundled model.

    Further options are Petals' own: --public_name, --adapters, --max_alloc_timeout and so on. The hub's key is read
    from HF_TOKEN.
    """
    from langchain_petals.cli.servers.server_options import read_order  # noqa: PLC0415 - asks the hub

    with running_command():
        try:
            order = read_order(
                context.args,
                {
                    "throughput": throughput,
                    "device": device,
                    "torch_dtype": torch_dtype,
                    "quant_type": quant_type,
                    "attn_cache_tokens": attn_cache_tokens,
                    "inference_max_length": inference_max_length,
                    "num_handlers": num_handlers,
                    "max_disk_space": max_disk_space,
                },
                initial_peers=initial_peers or (),
                new_swarm=new_swarm,
                host=host,
                port=port,
                announce=announce or (),
                identity_path=identity_path,
                blocks=blocks,
                dht_prefix=dht_prefix,
            )
            _Run(order, as_json=as_json, verbose=verbose).serve(python)
        except InvalidRequestError as error:
            show_error(str(error))
            raise typer.Exit(WRONG_USAGE) from None


class _Run:
    """One run of a server: its steps, what is printed when it is ready, and how it is until it ends."""

    def __init__(self, order: Order, *, as_json: bool, verbose: bool) -> None:
        self._order, self._as_json, self._verbose = order, as_json, verbose
        self._console = make_console(stderr=as_json)

    def serve(self, python: Path | None) -> None:
        from langchain_petals import swarm  # noqa: PLC0415 - takes a second
        from langchain_petals.cli.servers.server_connection import Connection, best_first  # noqa: PLC0415 - as above

        if self._order.initial_peers is None:
            self._console.print(_PUBLIC, markup=False)
        server = swarm.ForegroundServer(
            swarm.servers_python(python), self._order.arguments, self._order.key, self._on_log
        )
        try:
            joined, loading, ready = self._start(server)
            addresses = best_first([str(each) for each in joined["addresses"]])
            self._tell_ready(Connection(self._order, str(joined["peer_id"]), addresses), loading, ready)
            self._watch(server, ready)
        finally:
            try:
                with self._step("Ending the server"):
                    server.end()
            except OSError:  # the terminal is gone, and the step could not be shown
                server.end()

    def _start(self, server: ForegroundServer) -> tuple[Event, Event, Event]:
        with self._step("Importing Petals") as say:
            server.wait_for("imported", say)
        with self._step("Starting a new swarm" if self._order.initial_peers == () else "Joining the swarm") as say:
            joined = server.wait_for("joined", say)
        with self._step("Measuring how fast this machine is") as say:
            loading = server.wait_for("loading", say)
        device = "the CPU" if loading["device"] == "cpu" else loading["device"]
        with self._step(f"Loading {span_of(loading['blocks'])} of {self._order.total} on {device}") as say:
            ready = server.wait_for("ready", say)
        return joined, loading, ready

    def _tell_ready(self, connection: Connection, loading: Event, ready: Event) -> None:
        if not loading["reachable"]:
            is_public = self._order.initial_peers is None
            self._console.print(f"\n{_RELAYED if is_public else _UNREACHABLE}", style="yellow", markup=False)
        if self._as_json:
            facts = {
                "model": self._order.model,
                "blocks": ready["blocks"],
                "total_blocks": self._order.total,
                **{name: loading[name] for name in _FACTS},
                "peer_id": connection.peer_id,
                "addresses": list(connection.addresses),
                "connection": connection.arguments,
                "join": connection.join,
            }
            typer.echo(json.dumps(facts, indent=2))
            sys.stdout.flush()
            return
        model = "the bundled model" if self._order.is_bundled else self._order.model
        self._show(f"\nServing {span_of(ready['blocks'])} of {model}.")
        self._console.print("\n[bold]Join from another machine[/bold]\n")
        self._show(connection.join)
        if connection.is_on_this_machine_alone:
            self._show("", "Only from this machine: the server listens at no other address.")
        if connection.other_addresses:
            self._show("", "The server's other addresses:", *connection.other_addresses)
        self._console.print("\n[bold]Use it in Python[/bold]\n")
        self._show(*connection.python)
        self._console.print("\n[bold]Or set these, and a program needs no arguments[/bold]\n")
        self._show(*connection.exports)
        self._show("", "Ctrl-C ends the server.")

    def _watch(self, server: ForegroundServer, ready: Event) -> None:
        """Show how the server is until it ends."""
        started, before, event = time.monotonic(), "", ready
        with progress("Serving") as say:
            while True:
                if event["event"] in ("ready", "status"):
                    parts = self._state(event)
                    say(
                        fitting([*parts, f"up {_duration(time.monotonic() - started)}"], self._console.width - 7)
                    )  # beside spinner and dots
                    text = ", ".join(parts)
                    if text != before and not self._is_live:
                        self._show(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
                    before = text
                event = server.next_event()

    def _state(self, event: Event) -> list[str]:
        """Return how the server and its swarm are; the most important first."""
        blocks, missing = event["blocks"], event["missing"]
        parts = [f"{span_of(blocks).capitalize()} of {self._order.total}" if blocks else "Loading other blocks"]
        parts.append(f"no server for {spans_of(missing)}" if missing else "all blocks online")
        parts.append("1 server" if event["servers"] == 1 else f"{event['servers']} servers")
        parts.append(f"{event['throughput']:,.0f} tokens/s")
        if event["cache_free"] is not None:
            parts.append(f"cache {event['cache_free']:.0%} free")
        return parts

    @property
    def _is_live(self) -> bool:
        return is_on() and not self._verbose

    @contextmanager
    def _step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show a step; with Petals' log in between, its name alone."""
        if not self._verbose:
            with step(self._console, what) as say:
                yield say
            return
        self._console.print(f"{what} ...", markup=False)
        yield self._on_log

    def _on_log(self, line: str) -> None:
        if self._verbose:
            with stepped_aside():
                sys.stderr.write(f"{line}\n")
                sys.stderr.flush()

    def _show(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line, markup=False)


def span_of(blocks: list[int]) -> str:
    """Return a span of blocks as words: [0, 12] is "blocks 0 to 11"."""
    first, last = blocks[0], blocks[1] - 1
    return f"block {first}" if first == last else f"blocks {first} to {last}"


def spans_of(blocks: list[int]) -> str:
    """Return blocks, in their order, as words: [4, 5, 6, 9] is "blocks 4 to 6 and block 9"."""
    spans: list[list[int]] = []
    for block in blocks:
        if spans and spans[-1][1] == block:
            spans[-1][1] = block + 1
        else:
            spans.append([block, block + 1])
    return " and ".join(map(span_of, spans))


def fitting(parts: list[str], width: int) -> str:
    """Return as many parts of a line as fit, at least the first."""
    fitted = parts[0]
    for part in parts[1:]:
        if len(fitted) + len(part) + 2 > width:
            break
        fitted = f"{fitted}, {part}"
    return fitted


def _duration(seconds: float) -> str:
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02}" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - an hour
