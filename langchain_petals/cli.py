"""The command `langchain-petals`.

Commands import what they need when they run, so that `--help` does not wait for torch.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from langchain_petals.errors import PetalsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_petals.llms import Petals
    from langchain_petals.swarm import LocalServer

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


@app.callback()
def _commands() -> None:
    """Keep `demo` a separate command: without this callback, typer makes a single command the program itself."""


@app.command()
def demo(
    prompt: Annotated[str | None, typer.Option(help="Ask this instead of a few prepared questions.")] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers to spread the model's 4 blocks over.")] = 2,
) -> None:
    """Start a swarm on this machine and talk to a small model; needs no internet, account or GPU."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        _run_demo(console, _QUESTIONS if prompt is None else (prompt,), servers)
    except PetalsError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"Error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _run_demo(console: Console, questions: Sequence[str], servers: int) -> None:
    from langchain_petals import Petals  # noqa: PLC0415
    from langchain_petals.swarm import LocalSwarm  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        with _step(console, f"Starting a swarm of {_number_of(servers)} on this machine"):
            swarm = stack.enter_context(LocalSwarm(servers=servers))
        for server in swarm.servers:
            console.print(f"  {_blocks(server)}: process {server.pid}, peer {server.peer_id}")
        with _step(console, "Loading the client: tokenizer, embeddings and output layer"):
            llm = Petals(**swarm.connection, temperature=0, preload=True)
        answers = [_ask(console, llm, question) for question in questions]
    tokens, seconds = map(sum, zip(*answers, strict=True))
    console.print(f"\n{tokens} tokens at {tokens / seconds:.0f} tokens/s; each went through {_number_of(servers)}.")
    console.print("The swarm is closed, and all its processes have ended. The same in Python:\n")
    console.print(_NEXT_STEPS, markup=False)


@contextlib.contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    """Show the name of a step, and its seconds when it is done."""
    started, outcome, name = time.monotonic(), "failed", f"{what} ... "
    if not console.is_terminal:
        console.print(name, end="")
    try:
        with console.status(name):  # shows nothing where there is no terminal
            yield
        outcome = f"{time.monotonic() - started:.1f} s"
    finally:
        console.print(name + outcome if console.is_terminal else outcome)


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
