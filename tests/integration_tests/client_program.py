"""Programs that use a swarm from a process of their own, as users' programs do, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_BEGINNING = """
import asyncio, json, multiprocessing, os, signal, sys, threading, warnings
from langchain_petals import Petals

# Python's own, from 3.12 on, whoever has started the threads
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal; a job in the background ignores it
CONNECTION = json.loads({connection!r})
PROMPT, LONG = "Human: Hello!\\nAI:", "Human: Count: 1, 2, 3, 4, 5\\nAI:"

def model(**options):
    return Petals(**CONNECTION, **{{"temperature": 0, "max_new_tokens": 8}} | options)

def say(*words):
    print(*words, flush=True)

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    work()
    sys.exit(0)

def wait_for(*pids):
    say("children ended with", *(os.waitpid(pid, 0)[1] for pid in pids))

"""


class ClientProgram:
    """A program in a process group of its own, with a temporary folder of its own.

    Args:
        connection: Where the swarm is, as `LocalSwarm.connection` says it.
        program: What it does; it finds `model`, `say` and the like above itself, see `_BEGINNING`.
    """

    def __init__(self, connection: dict[str, Any], program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="f-", dir="/tmp")  # short: it holds a socket
        source = Path(self._folder.name) / "program.py"
        source.write_text(_BEGINNING.format(connection=json.dumps(connection)) + program, encoding="utf-8")
        self._temporary = Path(self._folder.name) / "tmp"
        self._temporary.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, str(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self._temporary)},
            start_new_session=True,
        )

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def interrupt(self) -> None:
        """Press Ctrl-C: the signal goes to all processes of the group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def kill(self) -> None:
        """Kill all processes of the group: the program, and the children that it has forked."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the program's first process."""
        self._process.send_signal(number)

    def end(self) -> tuple[list[str], str, int]:
        """Wait for its end; return the lines it has printed, what it has printed to stderr, and its exit status."""
        printed, errors = self._process.communicate()
        return printed.splitlines(), errors, self._process.returncode

    @property
    def leavings(self) -> list[str]:
        """Files in its temporary folder, and processes that were started with paths in there, such as p2pd."""
        listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
        processes = [line for line in listed.splitlines() if str(self._temporary) in line]
        return [each.name for each in self._temporary.iterdir()] + processes

    def wait_until_nothing_is_left(self) -> None:
        """Wait for processes that see only then that the program is gone; the suite's time limit ends the wait."""
        while self.leavings:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._folder.cleanup()


def ended(connection: dict[str, Any], program: str) -> list[str]:
    """Run a program that must end well and leave nothing; return the lines that it prints."""
    with ClientProgram(connection, program) as running:
        printed, errors, status = running.end()
        assert not errors
        assert status == 0
        assert not running.leavings
        return printed
