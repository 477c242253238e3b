"""What `langchain-petals server` prints about the servers' environment; a stand-in installs nothing."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest
from command import run

from langchain_petals.swarm.interpreter import MARKER

if TYPE_CHECKING:
    from pathlib import Path

    from scripted_uv import ScriptedUv


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
