"""`langchain-petals server run`: real servers, each started by a command of its own."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from langchain_petals import ChatPetals, Petals

if TYPE_CHECKING:
    import pytest
    from local_hub import LocalHub
    from typing_extensions import Self

    from langchain_petals.swarm import LocalSwarm

READER = "hf_mayReadTheGatedModel"

# Ctrl-C works as in a terminal, also where the tests run in the background.
_COMMAND = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("langchain_petals", run_name="__main__")
"""


class RunningServer:
    """The command, with a temporary folder and caches of its own.

    Args:
        options: Its options, after `server run`.

    Attributes:
        facts: What it prints as JSON.
    """

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="s-", dir="/tmp")  # short: it holds sockets
        self.temporary = Path(self._folder.name) / "tmp"
        self.temporary.mkdir()
        self.command = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, "server", "run", "--json", "--num-handlers", "1", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(self.temporary), "PETALS_CACHE": self._folder.name},
        )
        self.facts: dict[str, Any] = {}
        self.processes: list[psutil.Process] = []

    def __enter__(self) -> Self:
        assert self.command.stdout is not None
        text = ""
        for line in self.command.stdout:
            text += line
            if line == "}\n":
                break
        self.facts = json.loads(text or "{}")
        self.processes = psutil.Process(self.command.pid).children(recursive=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.command.kill()
        self.end()
        self._folder.cleanup()

    def end(self) -> tuple[int, str]:
        """Wait for the end of the command; return its exit code, and what it has printed as errors."""
        if self.command.stderr is None or self.command.stderr.closed:
            return self.command.wait(), ""
        errors = self.command.communicate()[1]
        return self.command.returncode, errors

    @property
    def leavings(self) -> list[str]:
        """Processes that still run, and files."""
        running = []
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    running.append(str(process))
        return running + [each.name for each in self.temporary.iterdir()]


def test_a_second_server_joins_by_the_printed_line_and_ctrl_c_ends_both(swarm: LocalSwarm) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(
            RunningServer("--new-swarm", "--host", "127.0.0.1", "--blocks", "0:2", "--throughput", "1")
        )
        program, *words = shlex.split(first.facts["join"])
        assert (program, *words[:2]) == ("langchain-petals", "server", "run")
        second = stack.enter_context(
            RunningServer(*words[2:], "--host", "127.0.0.1", "--blocks", "2:4", "--throughput", "1")
        )
        assert (first.facts["blocks"], second.facts["blocks"]) == ([0, 2], [2, 4])
        answers = [
            ChatPetals(**connection, temperature=0, max_new_tokens=20, session_cache=0).invoke("Who are you?").text
            for connection in (second.facts["connection"], swarm.connection)
        ]
        assert answers[0] == answers[1] != ""
        for server in (second, first):
            server.command.send_signal(signal.SIGINT)
            code, errors = server.end()
            assert code == 130, errors
            assert "Traceback" not in errors
            assert server.processes
            assert not server.leavings


def test_nothing_is_left_of_a_server_whose_command_was_killed() -> None:
    with RunningServer("--new-swarm", "--host", "127.0.0.1") as server:
        assert server.facts["throughput"] > 0  # measured, without the internet
        assert server.facts["blocks"] == [0, 4]  # all that fit
        assert server.facts["torch_dtype"] == "float32"
        server.command.kill()
        server.command.wait()
        assert server.processes
        while server.leavings:  # they see it by themselves; the suite's time limit ends the wait
            pass


def test_petals_refusal_of_an_option_is_shown_with_the_options_that_it_has() -> None:
    with RunningServer("--new-swarm", "--speed", "9") as server:
        code, errors = server.end()
    assert code == 2
    assert "Error: Petals does not take these options: unrecognized arguments: --speed 9. It has\n" in errors
    assert "--max_alloc_timeout" in errors


def test_the_server_of_a_gated_model_gets_the_key_but_does_not_show_it(
    hub: LocalHub, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.keys.add(READER)
    hub.add("acme/gated", tiny_folder, gated=True, readers={READER})
    monkeypatch.setenv("HF_TOKEN", READER)
    options = ("--new-swarm", "--host", "127.0.0.1", "--blocks", "4", "--throughput", "1")
    with RunningServer("acme/gated", *options, "--verbose") as server:
        for process in server.processes:
            assert READER not in f"{process.cmdline()} {process.environ()}"
        connection = server.facts["connection"]
        assert connection.keys() == {"model", "initial_peers"}  # the client knows Petals' own prefix
        llm = Petals(**connection, cache_dir=str(tmp_path / "cache"), temperature=0, max_new_tokens=4)
        assert llm.invoke("Human: Hello!\nAI:")
        server.command.terminate()
        code, errors = server.end()
    assert code == 143
    assert READER not in f"{server.facts} {errors}"
    assert "100%|" in errors  # the bar of the download
