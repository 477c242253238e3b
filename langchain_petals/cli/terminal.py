"""What all commands share: the console, named steps, and how a command ends."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from langchain_petals.cli.plain_text import harmless
from langchain_petals.errors import PetalsError
from langchain_petals.progress import is_on, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILED = 1
"""Exit code of a command that shows an error, or finds something wrong."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM."""

HUNG_UP = 128 + signal.SIGHUP
"""Exit code after SIGHUP: the terminal was closed."""


class SignalledExit(SystemExit):
    """The end of the program that a signal asks for; unlike another `SystemExit`, nothing may take it for its own."""


@contextlib.contextmanager
def running_command() -> Iterator[None]:
    """Run a command: errors are shown as sentences; Ctrl-C, SIGTERM and SIGHUP end what the command began.

    Raises:
        typer.Exit: The command ended by an error (code 1) or by Ctrl-C (130).
        SignalledExit: It ended by SIGTERM (143), or by SIGHUP (129), which is ignored under nohup.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # what it cannot encode, such as a server's name, becomes an escape
        sys.stdout.reconfigure(errors="backslashreplace")
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _end)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, _end)
    try:
        yield
    except BrokenPipeError:  # whoever read the output has seen enough, as in `| head -1`
        silence_output()
        raise typer.Exit(FAILED) from None
    except (PetalsError, OSError) as error:
        show_error(sentence_of(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SignalledExit(128 + number)


def sentence_of(error: Exception) -> str:
    """Return the text of an error; of a file's, without its number."""
    if isinstance(error, OSError) and not isinstance(error, PetalsError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)


def open_streams() -> None:
    """Let standard streams that are closed lead nowhere.

    Libraries write to them unasked. And the next file or connection that is opened would get their numbers, to which
    child processes write.
    """
    for name, mode in {"stdin": "r", "stdout": "w", "stderr": "w"}.items():
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - until the program ends


def silence_output() -> None:
    """Let what is still to be written go nowhere, so that the program's end writes no error about it."""
    with contextlib.suppress(OSError, ValueError):  # in tests, it is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_error(text: str) -> None:
    """Show an error on the standard error stream."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        harmless(f"Error: {text}"),  # strangers' words may be in it
        style="red",
        markup=False,
    )


def make_console(*, stderr: bool = False) -> Console:
    """Return the console of the standard output, or of the standard error stream.

    Nothing is wrapped or coloured that goes to a file.
    """
    return Console(highlight=False, soft_wrap=True, stderr=stderr)


def can_ask(console: Console) -> bool:
    """Return whether somebody sits at both ends: reads the output, and can type."""
    return console.is_terminal and sys.stdin is not None and sys.stdin.isatty()


@contextlib.contextmanager
def keys_unseen() -> Iterator[None]:
    """Let the terminal show no `^C` in the middle of a text while the block runs."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    changed = termios.tcgetattr(sys.stdin)
    changed[3] &= ~termios.ECHOCTL
    termios.tcsetattr(sys.stdin, termios.TCSANOW, changed)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


@contextlib.contextmanager
def step(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Show the name of a step, and its seconds when it is done.

    Args:
        console: Where to show it.
        what: What is being done, as in "Starting a swarm".

    Yields:
        A function that shows a line about the step while it runs.
    """
    started, outcome, name = time.monotonic(), "failed", f"{what} ... "
    is_shown_live = console.is_terminal and is_on()
    if not is_shown_live:
        console.print(name, end="", markup=False)
    try:
        with progress(what) as say:
            yield lambda line: say(f"{what}: {line}"[: console.width - 10])
        outcome = f"{time.monotonic() - started:.1f} s"
    except (KeyboardInterrupt, SignalledExit):
        outcome = "stopped"
        raise
    finally:
        console.print(name + outcome if is_shown_live else outcome, markup=False)
