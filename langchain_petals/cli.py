"""The command `langchain-petals`.

Commands import what they need when they run: `--help` must not wait for torch.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from langchain_petals.errors import PetalsError

if TYPE_CHECKING:
    from langchain_petals.llms import Petals
    from langchain_petals.swarm import LocalSwarm

app = typer.Typer(
    help="Language models on a Petals swarm, for LangChain.", no_args_is_help=True, pretty_exceptions_enable=False
)

_QUESTIONS = ("Hello!", "Who are you?", "What is two plus three?", "Repeat after me: many small machines")
_MAX_NEW_TOKENS = 64
_NEXT_STEPS = """\
from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

with LocalSwarm() as swarm:
    print(Petals(**swarm.connection, temperature=0).invoke("Human: Hello!\\nAI:"))"""


@app.callback()
def _commands() -> None:
    """Keep `demo` a command of its own: typer would make the only one the program itself."""


@app.command()
def demo(
    prompt: Annotated[str | None, typer.Option(help="Ask this instead of a few prepared questions.")] = None,
    servers: Annotated[int, typer.Option(min=1, help="Servers to spread the model over, 1 to 4.")] = 2,
) -> None:
    """Start a swarm on this machine and let a small model answer; needs no internet, account or GPU."""
