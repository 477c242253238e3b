"""`server run`: what is printed while a server starts, runs and ends; the server is a stand-in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import PEER, STARTED, STATUS, ScriptedServer
from typer.testing import CliRunner

from langchain_petals.cli import app
from langchain_petals.cli.servers.server_run import fitting, spans_of

if TYPE_CHECKING:
    from typer.testing import Result

ADDRESS = f"/ip4/192.168.1.20/tcp/31337/p2p/{PEER}"


def run(server: ScriptedServer, *words: str) -> Result:
    return CliRunner().invoke(app, ["server", "run", *words, "--python", str(server.python)])


def test_the_steps_the_ways_to_join_and_the_state_are_printed(tmp_path: Path) -> None:
    later: dict[str, Any] = {"event": "status", **STATUS, "servers": 2, "missing": []}
    result = run(ScriptedServer(tmp_path, [*STARTED, later, later], then="sys.exit(3)"), "--new-swarm", "--blocks=0:2")
    assert result.exit_code == 1
    shown = re.sub(r"\d+\.\d s|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "#", result.stdout)
    assert shown.startswith(
        "Importing Petals ... #\n"
        "Starting a new swarm ... #\n"
        "Measuring how fast this machine is ... #\n"
        "Loading blocks 0 to 1 of 4 on the CPU ... #\n"
    )
    assert f"\nlangchain-petals server run --initial-peers {ADDRESS}\n" in shown
    assert f'\n    initial_peers=[\n        "{ADDRESS}",\n    ],\n' in shown
    assert f"\nexport LANGCHAIN_PETALS_INITIAL_PEERS={ADDRESS}\n" in shown
    state = "# Blocks 0 to 1 of 4, {}, 1,234 tokens/s, cache 100% free\n"
    assert shown.endswith(
        state.format("no server for blocks 2 to 3, 1 server")
        + state.format("all blocks online, 2 servers")  # once, since nothing has changed
        + "Ending the server ... #\n"
    )
    assert "The server ended with exit code 3." in result.stderr


def test_a_server_that_others_cannot_reach_says_what_to_do(tmp_path: Path) -> None:
    events = [event | {"reachable": False} if event["event"] == "loading" else event for event in STARTED]
    result = run(ScriptedServer(tmp_path, events, then="sys.exit(3)"), "--initial-peers", ADDRESS)
    assert "\nOther servers cannot reach this one: a router or a firewall is between." in result.stdout
    assert run(ScriptedServer(tmp_path, then="sys.exit(3)"), "--new-swarm").stdout.find("cannot reach") == -1


def test_json_is_one_document_on_the_standard_output(tmp_path: Path) -> None:
    result = run(ScriptedServer(tmp_path, then="sys.exit(3)"), "--new-swarm", "--json")
    facts = json.loads(result.stdout)
    assert facts["connection"]["initial_peers"] == [ADDRESS]
    assert facts["join"] == f"langchain-petals server run --initial-peers {ADDRESS}"
    assert (facts["blocks"], facts["total_blocks"], facts["device"], facts["peer_id"]) == ([0, 2], 4, "cpu", PEER)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_and_then_the_command(tmp_path: Path, number: signal.Signals) -> None:
    server = ScriptedServer(tmp_path, then=f"os.kill(order['command'], {number})\nwhile True: signal.pause()")
    assert run(server, "--new-swarm").exit_code == 128 + number
    assert server.was_ended
    assert not Path(server.told["order"]["work_dir"]).exists()


_IN_A_TERMINAL = """
import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("langchain_petals", run_name="__main__")
"""


def test_a_server_whose_terminal_was_closed_is_ended_in_the_proper_way(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path)
    ours, theirs = os.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", _IN_A_TERMINAL, "server", "run", "--new-swarm", "--python", str(server.python)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    while b"Ctrl-C ends the server" not in shown:
        shown += os.read(ours, 1000)
    os.close(ours)
    command.wait()
    assert server.was_ended
    assert not Path(server.told["order"]["work_dir"]).exists()


def test_the_key_is_neither_on_the_command_line_nor_in_the_variables_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("langchain_petals.swarm.blocks_and_context", lambda *_: (24, 2048))
    server = ScriptedServer(tmp_path, then="sys.exit(3)")
    result = run(server, "bigscience/bloom-560m", "--new-swarm")
    told = server.told
    assert told["order"]["token"] == "hf_secret"
    assert "hf_secret" not in f"{told['arguments']} {told['variables']} {told['order']['arguments']} {result.output}"


def test_the_key_is_not_given_to_the_server_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server = ScriptedServer(tmp_path, then="sys.exit(3)")
    run(server, "--new-swarm")
    assert server.told["order"]["token"] is None


def test_before_a_server_joins_the_public_swarm_it_is_said_what_that_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("langchain_petals.swarm.blocks_and_context", lambda *_: (24, 2048))
    result = run(ScriptedServer(tmp_path, then="sys.exit(3)"), "bigscience/bloom-560m")
    assert result.stdout.startswith("Neither --new-swarm nor --initial-peers: this server joins the public swarm.\n")
    assert "Joining the swarm ... " in result.stdout


def test_petals_options_are_named_when_one_does_not_exist(tmp_path: Path) -> None:
    refused = {"event": "refused", "problem": "unrecognized arguments: --speed 9", "options": ["--adapters", "--port"]}
    result = run(ScriptedServer(tmp_path, [STARTED[0], refused], then="sys.exit(2)"), "--new-swarm", "--speed", "9")
    assert result.exit_code == 2
    assert "unrecognized arguments: --speed 9. It has\n--adapters, --port." in result.stderr


def test_wrong_usage_is_exit_code_2_before_anything_is_started(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path)
    for words in ([], ["--new-swarm", "--blocks", "9:12"], ["--new-swarm", "--initial-peers", ADDRESS]):
        result = run(server, *words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "order").exists()


def test_a_server_that_fails_shows_its_reason_and_the_end_of_its_log(tmp_path: Path) -> None:
    failed = {"event": "failed", "reason": "ValueError: Petals does not support model type gpt2"}
    server = ScriptedServer(tmp_path, [STARTED[0], failed], log="loading\nbroken\x1b[2J\n", then="sys.exit(1)")
    result = run(server, "--new-swarm")
    assert result.exit_code == 1
    assert "The server failed with ValueError: Petals does not support model type gpt2." in result.stderr
    assert result.stderr.endswith("\nloading\nbroken[2J\n")


def test_what_an_interpreter_prints_before_the_program_runs_is_part_of_the_log(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path, [STARTED[0]], then="sys.exit(3)")
    server.python.write_text(server.python.read_text().replace("\norder =", "\nprint('hello from \\x1bsite')\norder ="))
    result = run(server, "--new-swarm")
    assert "The server ended with exit code 3." in result.stderr
    assert result.stderr.endswith("\nhello from site\n")


def test_a_character_of_the_log_may_come_in_pieces(tmp_path: Path) -> None:
    line = "x" + "\u00e9" * 100_000  # more than a pipe holds, and characters end at odd bytes
    server = ScriptedServer(tmp_path, log=f"{line}\n", then="sys.exit(3)")
    assert run(server, "--new-swarm").stderr.endswith(f"\n{line}\n")


def test_the_log_is_shown_if_wanted_without_codes_that_change_the_terminal(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path, log="hello \x1b[2Jthere\n", then="sys.exit(3)")
    assert "hello [2Jthere\n" in run(server, "--new-swarm", "--verbose").stderr


def test_an_environment_that_cannot_run_petals_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    server = ScriptedServer(tmp_path, [], log="it cannot run petals' servers: its environment lacks torch\n")
    server.python.write_text(server.python.read_text().replace("signal.pause()", "sys.exit(78)"))
    result = run(server, "--new-swarm")
    assert result.exit_code == 1
    assert "its environment lacks torch. Run `langchain-petals server install`" in result.stderr


def test_blocks_are_shown_as_spans() -> None:
    assert spans_of([4, 5, 6, 9]) == "blocks 4 to 6 and block 9"


def test_a_line_is_cut_between_its_parts() -> None:
    assert fitting(["one", "two", "three"], 9) == "one, two"
    assert fitting(["one", "two", "three"], 15) == "one, two, three"
    assert fitting(["one", "two"], 2) == "one"
