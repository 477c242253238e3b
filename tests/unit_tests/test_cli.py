"""What `langchain-petals` prints; swarm and model are stand-ins."""

from __future__ import annotations

import importlib.metadata
import io
import json
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from scripted_uv import ScriptedUv
from typer.testing import CliRunner

import langchain_petals
from langchain_petals import swarm as swarms
from langchain_petals.cli import app, environment
from langchain_petals.cli.terminal import step
from langchain_petals.errors import InvalidRequestError, LocalSwarmError
from langchain_petals.swarm.interpreter import MARKER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self


class FakeServer:
    """A server of no swarm."""

    def __init__(self, blocks: range) -> None:
        self.blocks, self.pid, self.peer_id = blocks, 4000 + blocks.start, f"Qm{blocks.start}"


class FakeSwarm:
    """A swarm of nobody."""

    open = 0

    def __init__(self, *, servers: int) -> None:
        if servers > 4:
            msg = f"servers={servers} is too many"
            raise InvalidRequestError(msg)
        self.connection = {"model": "folder"}
        self.servers = [FakeServer(range(4 * i // servers, 4 * (i + 1) // servers)) for i in range(servers)]

    def __enter__(self) -> Self:
        FakeSwarm.open += 1
        return self

    def __exit__(self, *_: object) -> None:
        FakeSwarm.open -= 1


class FakePetals:
    """Answers with its prompt's words, and some markup."""

    def __init__(self, **fields: Any) -> None:
        assert fields == {"model": "folder", "temperature": 0, "preload": True}

    def stream(self, prompt: str, stop: list[str]) -> Iterator[str]:
        assert FakeSwarm.open == 1
        assert stop == ["\nHuman:"]
        question = prompt.removeprefix("Human: ").removesuffix("\nAI:")
        yield from [" ", "You", " ", "said", " [b]", question, "[/b]\n", ""]

    def get_num_tokens(self, text: str) -> int:
        return len(text.split())


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeSwarm.open = 0
    monkeypatch.setattr(swarms, "LocalSwarm", FakeSwarm)
    monkeypatch.setattr(langchain_petals, "Petals", FakePetals)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", sys.executable)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def test_the_demo_says_what_it_does_and_streams_plain_text() -> None:
    result = run("demo", "--prompt", "What is [red]?")
    assert result.exit_code == 0
    assert re.sub(r"\d+\.\d s|\d+ tokens/s", "#", result.output) == (
        "Starting a swarm of 2 servers on this machine ... #\n"
        "  blocks 0 to 1: process 4000, peer Qm0\n"
        "  blocks 2 to 3: process 4002, peer Qm2\n"
        "Loading the client: tokenizer, embeddings and output layer ... #\n"
        "\n"
        "Human: What is [red]?\n"
        "AI: You said [b]What is [red]?[/b]\n"
        "\n"
        "\n"
        "5 tokens at #; each went through 2 servers.\n"
        "The swarm is closed, and all its processes have ended. The same in Python:\n"
        "\n"
        "from langchain_petals import Petals\n"
        "from langchain_petals.swarm import LocalSwarm\n"
        "\n"
        "with LocalSwarm() as swarm:\n"
        "    llm = Petals(**swarm.connection, temperature=0)\n"
        '    for piece in llm.stream("Human: Hello!\\nAI:"):\n'
        '        print(piece, end="", flush=True)\n'
    )
    assert FakeSwarm.open == 0


def test_the_demo_can_run_on_one_server() -> None:
    assert "swarm of 1 server on" in run("demo", "--servers", "1").output


def test_without_a_prompt_prepared_questions_are_asked() -> None:
    output = run("demo", "--servers", "4").output
    assert "  block 3: process 4003, peer Qm3\n" in output
    assert re.findall("Human: (.*)\nAI: You said", output) == [
        "Hello!",
        "Who are you?",
        "What is Petals?",
        "Repeat after me: seven blue petals",
    ]


def test_output_to_a_file_is_neither_wrapped_nor_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    output = run("demo", "--prompt", "word " * 40).output
    assert "\x1b" not in output
    assert f"AI: You said [b]{'word ' * 40}[/b]\n" in output


@pytest.mark.parametrize("arguments", [["--servers", "0"], ["--servers", "two"], ["--prompts", "Hello!"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output


def test_an_error_is_a_sentence_and_an_exit_code() -> None:
    result = run("demo", "--servers", "5")
    assert result.exit_code == 1
    assert result.stdout.endswith("Starting a swarm of 5 servers on this machine ... failed\n")
    assert result.stderr == "Error: servers=5 is too many\n"


def test_an_error_in_the_middle_closes_the_swarm(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        msg = "the log's end: [Errno 2]"
        raise LocalSwarmError(msg)

    monkeypatch.setattr(FakePetals, "stream", fail)
    result = run("demo")
    assert (result.exit_code, result.stderr) == (1, "Error: the log's end: [Errno 2]\n")
    assert FakeSwarm.open == 0


def test_help_lists_the_commands() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert {"demo", "server"} <= set(run(*arguments).output.split())
    for arguments in (["server"], ["server", "-h"]):
        assert {"install", "uninstall", "info"} <= set(run(*arguments).output.split())


# ---- the servers' environment


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedUv:
    """Return a `uv` that installs nothing; no interpreter for servers is there."""
    monkeypatch.delenv("LANGCHAIN_PETALS_SERVER_PYTHON")
    monkeypatch.setenv("LANGCHAIN_PETALS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", _no_version)  # petals may be installed beside us
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # a real uv may lie beside the real one
    return ScriptedUv(tmp_path)


def _no_version(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_installing_shows_its_steps_and_what_was_made(uv: ScriptedUv, tmp_path: Path) -> None:
    result = run("server", "install")
    assert result.exit_code == 0
    folder = tmp_path / "data" / "servers"
    made = f"Petals 2.2.0.post1, Python 3.11.7, 0.0 GB, in {folder}\n"
    assert re.sub(r"\d+\.\d s", "#", result.output) == (
        f"Making an environment with Python in {folder} ... #\n"
        "Installing what Petals needs ... #\n"
        "Installing Petals 2.2.0.post1 ... #\n"
        "Trying whether servers can run there ... #\n" + made
    )
    assert run("server", "install").output == made
    assert run("server", "info").output == made
    assert run("server", "uninstall").output == f"Removed {folder}.\n"
    assert run("server", "uninstall").output == "There is nothing to remove.\n"


def test_a_fork_is_installed_from_where_it_is(uv: ScriptedUv, tmp_path: Path) -> None:
    result = run("server", "install", "--petals", "https://example.org/corolla")
    assert "Petals 2.2.0.post1 from git+https://example.org/corolla, " in result.output
    assert uv.orders[1][-2] == "git+https://example.org/corolla"


def test_an_installation_that_fails_is_an_error_with_what_the_installer_said(uv: ScriptedUv) -> None:
    uv.fail_at("-r")
    result = run("server", "install")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "Installing what Petals needs ... failed")
    assert result.stderr.endswith("Resolved 70 packages\nno solution found\n")


@pytest.mark.usefixtures("uv")
def test_without_an_environment_info_names_the_command_that_makes_one() -> None:
    result = run("server", "info")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Run `langchain-petals server install`" in result.stderr


def test_info_describes_an_interpreter_that_was_named(uv: ScriptedUv, monkeypatch: pytest.MonkeyPatch) -> None:
    run("server", "install")
    python = uv.folder / "data" / "servers" / "bin" / "python"
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", str(python.rename(uv.folder / "mine")))
    shown = dict(line.split() for line in run("server", "info").output.splitlines())
    assert shown == {"path": str(uv.folder / "mine"), "python": "3.11.7", "petals": "2.2.0.post1", "hivemind": "1.1.12"}


def test_info_names_the_command_that_brings_an_older_environment_up_to_date(uv: ScriptedUv) -> None:
    made = run("server", "install").output.splitlines()[-1]
    marker = uv.folder / "data" / "servers" / MARKER
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"lock": "older"}))
    assert run("server", "info").output == f"{made}; `langchain-petals server install` brings it up to date\n"
    assert run("server", "install").output.splitlines()[-1] == made
    assert run("server", "info").output == f"{made}\n"


@pytest.mark.usefixtures("uv")
@pytest.mark.parametrize("command", ["install", "info"])
def test_a_data_folder_that_is_a_file_is_an_error_and_an_exit_code(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LANGCHAIN_PETALS_DATA_DIR", str(tmp_path / "file"))
    result = run("server", command)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_sigterm_ends_the_installer_and_then_the_command(uv: ScriptedUv, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    (uv.folder / "uv").write_text(f"#!/bin/sh\ntrap ': >{ended}; exit' TERM\nkill -TERM $PPID\nwhile :; do :; done\n")
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run("server", "install").exit_code == 143
        assert ended.exists()
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_on_a_terminal_without_progress_a_step_is_named_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_PROGRESS", "0")
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, highlight=False)
    with step(console, "Installing"):
        assert output.getvalue() == "Installing ... "
    assert re.fullmatch(r"Installing \.\.\. \d+\.\d s\n", output.getvalue())


def test_a_demo_that_nobody_watches_names_the_commands_to_run(uv: ScriptedUv) -> None:
    result = run("demo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`langchain-petals server install`" in result.stderr
    assert "`langchain-petals demo --yes`" in result.stderr
    assert not uv.orders


def test_the_demo_installs_unasked_if_told_to(uv: ScriptedUv) -> None:
    output = run("demo", "--yes", "--prompt", "Hello!").output
    assert output.index("Trying whether servers can run there") < output.index("Starting a swarm of 2 servers")
    assert "AI: You said [b]Hello![/b]" in output
    orders = uv.orders
    assert run("demo", "--yes", "--prompt", "Hello!").output.startswith("Starting a swarm")
    assert uv.orders == orders


@pytest.mark.parametrize(("answer", "code"), [("\n", 0), ("y\n", 0), ("n\n", 1)])
def test_on_a_terminal_the_demo_asks_first(
    uv: ScriptedUv, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    monkeypatch.setattr(environment, "can_ask", lambda _: True)
    result = CliRunner().invoke(app, ["demo", "--prompt", "Hello!"], input=answer)
    assert result.exit_code == code
    assert str(uv.folder / "data" / "servers") in result.output
    assert "Install it now? [Y/n]" in result.output
    assert bool(uv.orders) == (code == 0)
