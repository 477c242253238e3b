"""`langchain-petals demo`: a swarm on this machine that answers a few questions."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_petals.cli.plain_text import WordWrap
from langchain_petals.cli.servers.environment import have_an_environment
from langchain_petals.cli.servers.server_run import span_of
from langchain_petals.cli.terminal import make_console, running_command, step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from langchain_petals.llms import Petals

_QUESTIONS = ("Hello!", "Who are you?", "What is Petals?", "Repeat after me: seven blue petals")
_NEXT_STEPS = """\
from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

with LocalSwarm() as swarm:
    llm = Petals(**swarm.connection, temperature=0)
    for piece in llm.stream("Human: Hello!\\nAI:"):
        print(piece, end="", flush=True)"""
_COMMANDS = """\
langchain-petals chat --local   a conversation with this model
langchain-petals swarm          a swarm for your own programs
langchain-petals status         which models the public swarm has
langchain-petals --help         all commands"""


def demo(
    prompt: Annotated[str | None, typer.Option(help="Ask this instead of a few prepared questions.")] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers to spread the model's 4 blocks over.")] = 2,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="If Petals is missing for servers, install it.")] = False,
) -> None:
    """Start a swarm on this machine and talk to a small model; needs no account, no GPU and, later on, no internet."""
    with running_command():
        console = make_console()
        have_an_environment(console, yes=yes, command="langchain-petals demo --yes")
        _run_demo(console, _QUESTIONS if prompt is None else (prompt,), servers)


def _run_demo(console: Console, questions: Sequence[str], servers: int) -> None:
    from langchain_petals import Petals  # noqa: PLC0415
    from langchain_petals.swarm import LocalSwarm  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        with step(console, f"Starting a swarm of {_number_of(servers)} on this machine"):
            swarm = stack.enter_context(LocalSwarm(servers=servers))
        for each in swarm.servers:
            console.print(f"  {span_of([each.blocks.start, each.blocks.stop])}: process {each.pid}")
        with step(console, "Loading the client: tokenizer, embeddings and output layer"):
            llm = Petals(**swarm.connection, temperature=0, preload=True)
        answers = [_ask(console, llm, question) for question in questions]
    tokens, seconds = map(sum, zip(*answers, strict=True))
    console.print(f"\n{tokens} tokens at {tokens / seconds:.0f} tokens/s; each went through {_number_of(servers)}.")
    console.print("The swarm is closed, and all its processes have ended. The same in Python:\n")
    console.print(_NEXT_STEPS, markup=False)
    console.print("\nWhat to try next:\n", markup=False)
    console.print(_COMMANDS, markup=False)


def _number_of(servers: int) -> str:
    return "1 server" if servers == 1 else f"{servers} servers"


def _ask(console: Console, llm: Petals, question: str) -> tuple[int, float]:
    """Show a question, and its answer while it is generated; return the answer's tokens and seconds."""
    wrap = WordWrap(lambda: console.width if console.is_terminal else sys.maxsize)
    started, text = time.monotonic(), ""
    console.print(f"\nHuman: {question}\n{wrap.add('AI: ')}", end="", markup=False)
    for piece in llm.stream(f"Human: {question}\nAI:", stop=["\nHuman:"]):
        console.print(wrap.add(piece if text else piece.lstrip()), end="", markup=False)
        text += piece
    console.print(wrap.end(), markup=False)
    return llm.get_num_tokens(text), time.monotonic() - started
