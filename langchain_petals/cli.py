"""The command `langchain-petals`.

Commands import what they need when they run, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from langchain_petals.errors import PetalsError, PetalsNotInstalledError
from langchain_petals.progress import is_on, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_petals.llms import Petals
    from langchain_petals.swarm import Installation, LocalServer

app = typer.Typer(
    help="Language models on a Petals swarm, for LangChain.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_QUESTIONS = ("Hello!", "Who are you?", "What is Petals?", "Repeat after me: seven blue petals")
_NEXT_STEPS = """\
from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

with LocalSwarm() as swarm:
    llm = Petals(**swarm.connection, temperature=0)
    for piece in llm.stream("Human: Hello!\\nAI:"):
        print(piece, end="", flush=True)"""


server = typer.Typer(help="The environment in which Petals' servers run on this machine.", no_args_is_help=True)
app.add_typer(server, name="server")


@app.command()
def demo(
    prompt: Annotated[str | None, typer.Option(help="Ask this instead of a few prepared questions.")] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers to spread the model's 4 blocks over.")] = 2,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="If Petals is missing for servers, install it.")] = False,
) -> None:
    """Start a swarm on this machine and talk to a small model; needs no account, no GPU and, later on, no internet."""
    with _errors_as_sentences():
        console = _console()
        _have_an_environment(console, yes=yes)
        _run_demo(console, _QUESTIONS if prompt is None else (prompt,), servers)


@server.command()
def install(
    python: Annotated[str | None, typer.Option(help="Interpreter to use, Python 3.10 to 3.12.")] = None,
    petals: Annotated[
        str | None, typer.Option(help="2.2.0.post1, the default; or the folder or address of git main or a fork.")
    ] = None,
) -> None:
    """Make an environment with Petals for the servers of LocalSwarm; nothing else on this machine is changed."""
    with _errors_as_sentences():
        _install(_console(), petals, python)


@server.command()
def uninstall() -> None:
    """Remove the environment that `install` has made."""
    from langchain_petals import swarm  # noqa: PLC0415

    with _errors_as_sentences():
        folder = swarm.environment_folder()
        _console().print(f"Removed {folder}." if swarm.uninstall() else "There is nothing to remove.", markup=False)


@server.command()
def info() -> None:
    """Show which interpreter runs the servers of LocalSwarm, and which Petals it has."""
    from langchain_petals import swarm  # noqa: PLC0415

    with _errors_as_sentences():
        console, python, made = _console(), swarm.servers_python(), swarm.installed()
        if made is not None and made.interpreter == python:
            _describe(console, made)
            return
        with progress(f"Importing Petals with {python}") as say:
            versions = swarm.check(python, say)
        for name, value in {"path": python, **versions}.items():
            console.print(f"{name:13}{value}", markup=False)


@contextlib.contextmanager
def _errors_as_sentences() -> Iterator[None]:
    try:
        yield
    except (PetalsError, OSError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _have_an_environment(console: Console, *, yes: bool) -> None:
    """Make the servers' environment if there is none, and somebody agrees."""
    from langchain_petals import swarm  # noqa: PLC0415

    if swarm.found_python() is not None:
        return
    if not yes:
        if not _can_ask(console):
            msg = (
                "No petals was found to run servers with. Run `langchain-petals server install` first, or "
                "`langchain-petals demo --yes`, which does it."
            )
            raise PetalsNotInstalledError(msg)
        console.print(
            "The demo's servers run Petals, which needs old versions of other packages. So it gets an environment of\n"
            f"its own, in {swarm.environment_folder()}.\n"
            "This takes some minutes and 1.5 GB (with pip on Linux up to 5 GB, since pip takes torch's CUDA build).\n"
            "`langchain-petals server uninstall` removes it.",
            markup=False,
        )
        if not typer.confirm("Install it now?", default=True):
            raise typer.Exit(1)
    _install(console)
    console.print()


def _can_ask(console: Console) -> bool:
    return console.is_terminal and sys.stdin.isatty()


def _install(console: Console, petals: str | None = None, python: str | None = None) -> None:
    from langchain_petals import swarm  # noqa: PLC0415

    def step(what: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        return _step(console, what)

    with _ended_by_sigterm():
        made = swarm.install(petals, python, step=step)
    _describe(console, made)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End the block by an exception on SIGTERM: what it has begun is ended and undone first."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _describe(console: Console, made: Installation) -> None:
    console.print(
        f"Petals {made.petals}"
        + ("" if made.source == made.petals else f" from {made.source}")
        + f", Python {made.python}, {made.size / 1e9:.1f} GB, in {made.folder}"
        + ("; `langchain-petals server install` brings it up to date" if made.is_outdated else ""),
        markup=False,
    )


def _run_demo(console: Console, questions: Sequence[str], servers: int) -> None:
    from langchain_petals import Petals  # noqa: PLC0415
    from langchain_petals.swarm import LocalSwarm  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        with _step(console, f"Starting a swarm of {_number_of(servers)} on this machine"):
            swarm = stack.enter_context(LocalSwarm(servers=servers))
        for each in swarm.servers:
            console.print(f"  {_blocks(each)}: process {each.pid}, peer {each.peer_id}")
        with _step(console, "Loading the client: tokenizer, embeddings and output layer"):
            llm = Petals(**swarm.connection, temperature=0, preload=True)
        answers = [_ask(console, llm, question) for question in questions]
    tokens, seconds = map(sum, zip(*answers, strict=True))
    console.print(f"\n{tokens} tokens at {tokens / seconds:.0f} tokens/s; each went through {_number_of(servers)}.")
    console.print("The swarm is closed, and all its processes have ended. The same in Python:\n")
    console.print(_NEXT_STEPS, markup=False)


@contextlib.contextmanager
def _step(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Show the name of a step, and its seconds when it is done; yield a function that shows a line about it."""
    started, outcome, name = time.monotonic(), "failed", f"{what} ... "
    is_shown_live = console.is_terminal and is_on()
    if not is_shown_live:
        console.print(name, end="", markup=False)
    try:
        with progress(what) as say:
            yield lambda line: say(f"{what}: {line}"[: console.width - 10])
        outcome = f"{time.monotonic() - started:.1f} s"
    finally:
        console.print(name + outcome if is_shown_live else outcome, markup=False)


def _number_of(servers: int) -> str:
    return "1 server" if servers == 1 else f"{servers} servers"


def _blocks(server: LocalServer) -> str:
    first, last = server.blocks[0], server.blocks[-1]
    return f"block {first}" if first == last else f"blocks {first} to {last}"


def _ask(console: Console, llm: Petals, question: str) -> tuple[int, float]:
    """Show a question, and its answer while it is generated; return the answer's tokens and seconds."""
    console.print(f"\nHuman: {question}\nAI: ", end="", markup=False)
    started, text = time.monotonic(), ""
    for piece in llm.stream(f"Human: {question}\nAI:", stop=["\nHuman:"]):
        console.print(piece if text else piece.lstrip(), end="", markup=False)
        text += piece
    console.print()
    return llm.get_num_tokens(text), time.monotonic() - started
