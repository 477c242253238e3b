"""All commands together: their help, the version and the completion, as processes of their own and in this one."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import run

ROOT = Path(__file__).parents[3]
COMMANDS = {"chat", "ask", "status", "swarm", "doctor", "demo", "server"}


def module(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m langchain_petals`."""
    return subprocess.run(
        [sys.executable, "-m", "langchain_petals", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=os.environ | variables,
    )


def test_help_lists_the_commands() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert set(run(*arguments).output.split()) >= COMMANDS
    for arguments in (["server"], ["server", "-h"]):
        assert {"install", "uninstall", "info"} <= set(run(*arguments).output.split())


@pytest.mark.parametrize("command", sorted(COMMANDS - {"server"}))
def test_each_command_explains_itself_and_refuses_what_it_does_not_know(command: str) -> None:
    assert run(command, "--help").exit_code == 0
    result = run(command, "--no-such-option")
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_the_version_is_that_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"1.2.3 of {name}")
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, "langchain-petals 1.2.3 of langchain-petals\n")


def test_python_m_is_the_same_command() -> None:
    ended = module("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Usage: langchain-petals" in ended.stdout
    assert set(ended.stdout.split()) >= COMMANDS


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from langchain_petals.cli import app; from typer.testing import CliRunner; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert loaded.isdisjoint({"torch", "hivemind", "transformers", "huggingface_hub"})


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_completion(shell: str) -> None:
    ended = module("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "_LANGCHAIN_PETALS_COMPLETE=" in ended.stdout


def test_a_shell_is_told_the_commands_that_begin_with_what_is_typed() -> None:
    ended = module(_LANGCHAIN_PETALS_COMPLETE="complete_bash", COMP_WORDS="langchain-petals s", COMP_CWORD="1")
    assert set(ended.stdout.split()) == {"status", "swarm", "server"}


def test_without_an_installed_package_the_version_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_found)
    result = run("--version")
    assert (result.exit_code, result.stdout.startswith("langchain-petals is not installed")) == (0, True)


def test_ctrl_c_while_the_command_is_imported_shows_nothing() -> None:
    program = (
        "import sys, signal\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'langchain_petals.cli.root': signal.raise_signal(signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import langchain_petals.cli"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
