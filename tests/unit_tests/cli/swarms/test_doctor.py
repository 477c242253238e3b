"""`langchain-petals doctor`: what each check says; integration tests have those that need a network."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from announced_swarm import AnnouncedSwarm
from command import run
from peer_addresses import PEER_ID
from scripted_swarm import ScriptedServer, peer_id

from langchain_petals import swarm as swarms
from langchain_petals.cli.swarms import doctor_checks
from langchain_petals.cli.swarms.doctor_checks import (
    Finding,
    check_hub,
    check_key,
    check_packages,
    check_python,
    check_servers,
)
from langchain_petals.engine import loading
from langchain_petals.errors import SwarmUnreachableError

TINY = str(Path(swarms.__file__).with_name("tiny"))
PEER = f"/ip4/10.1.2.3/udp/4001/quic-v1/p2p/{PEER_ID}"  # no TCP address, so that nobody tries to reach it


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: None) -> AnnouncedSwarm:
    """Return a swarm of two servers; there is an environment for servers, and the hub may not be asked."""
    python = tmp_path / "python"
    python.write_text(f'#!{sys.executable}\nprint(\'{{"python": "3.11.7", "petals": "2.2.0.post1"}}\')\n')
    python.chmod(0o755)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", str(python))
    swarm = AnnouncedSwarm(ScriptedServer(1, 0, 2), ScriptedServer(2, 2, 4), models={"tiny": {"num_blocks": 4}})
    monkeypatch.setattr(loading, "join_swarm", swarm.join)
    return swarm


def states(output: str) -> dict[str, str]:
    """Return the state of each subject."""
    lines = [line.split(maxsplit=1) for line in output.splitlines() if line[:5].strip() in {"ok", "note", "wrong"}]
    return {rest.partition(": ")[0]: state for state, rest in lines}


def test_where_nothing_is_wrong_the_exit_code_is_0(swarm: AnnouncedSwarm) -> None:
    result = run("doctor", TINY, "--initial-peers", PEER)
    assert (result.exit_code, result.stderr) == (0, "")
    found = states(result.stdout)
    assert found.pop("packages") in {"ok", "note"}  # the package may be found on the path
    assert found == {
        "Python": "ok",
        "hivemind": "ok",
        "key": "ok",
        "hub": "note",
        "servers": "ok",
        TINY: "ok",
        PEER: "note",
        "swarm": "ok",
        "blocks": "ok",
    }
    assert "family llama, 4 blocks, announced as 'tiny'" in result.stdout
    assert "it announces tiny" in result.stdout
    assert result.stdout.endswith("\nNothing is wrong.\n")
    assert "\x1b" not in result.stdout
    assert (swarm.joined, swarm.users) == ([[PEER]], 0)


def test_json_holds_all_findings_and_nothing_else_is_written(swarm: AnnouncedSwarm) -> None:
    swarm.round_trips[peer_id(2)] = math.inf
    result = run("doctor", TINY, "--initial-peers", PEER, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["ok"]) == (1, False)
    [wrong] = [each for each in found["findings"] if each["state"] == "wrong"]
    assert wrong == {
        "subject": "blocks",
        "state": "wrong",
        "text": "no server that answers holds 2:4 of 'tiny'",
        "mend": f"langchain-petals status {TINY}",
    }


@pytest.mark.usefixtures("swarm")
def test_a_model_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    result = run("doctor", str(tmp_path), "--initial-peers", PEER)
    assert (result.exit_code, states(result.stdout)[str(tmp_path)]) == (1, "wrong")
    assert "its family 'gpt2' is none of" in result.stdout
    assert result.stdout.endswith("\n1 thing is wrong.\n")


@pytest.mark.usefixtures("swarm")
def test_a_swarm_that_cannot_be_joined_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        msg = "nobody answers"
        raise SwarmUnreachableError(msg)

    monkeypatch.setattr(loading, "join_swarm", fail)
    result = run("doctor", "--initial-peers", PEER)
    assert result.exit_code == 1
    assert "wrong swarm: nobody answers\n" in result.stdout


@pytest.mark.usefixtures("swarm")
def test_variables_that_name_a_connection_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_INITIAL_PEERS", PEER)
    monkeypatch.setenv("LANGCHAIN_PETALS_MODEL", TINY)
    result = run("doctor")
    assert result.exit_code == 0
    assert "defaults: LANGCHAIN_PETALS_MODEL, LANGCHAIN_PETALS_INITIAL_PEERS\n" in result.stdout
    assert states(result.stdout)["blocks"] == "ok"


@pytest.mark.usefixtures("swarm")
def test_an_impossible_variable_is_wrong_and_ends_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_INITIAL_PEERS", "10.1.2.3:80")
    result = run("doctor")
    assert (result.exit_code, states(result.stdout)["connection"]) == (1, "wrong")
    assert "LANGCHAIN_PETALS_INITIAL_PEERS: '10.1.2.3:80' is not a multiaddress" in result.stdout


def test_this_interpreter_will_do() -> None:
    assert check_python().state == "ok"


def test_a_package_that_is_missing_or_too_old_comes_with_the_command_that_installs_it() -> None:
    found = list(check_packages(["torch>=999", "no-such-package>=1", "rich>=13", "other>=9; extra == 'x'"]))
    assert [(each.subject, each.state, each.mend) for each in found] == [
        ("torch", "wrong", "python -m pip install --upgrade 'torch>=999'"),
        ("no-such-package", "wrong", "python -m pip install --upgrade 'no-such-package>=1'"),
    ]
    assert "torch>=999 is needed" in found[0].text
    assert found[1].text.startswith("not installed; ")


def test_packages_that_fit_are_listed_with_their_versions() -> None:
    [found] = check_packages(["rich>=13"])
    assert found.state == "ok"
    assert "torch " in found.text


@pytest.mark.parametrize("variable", ["HUGGINGFACE_API_KEY", "HF_TOKEN", "HUGGINGFACEHUB_API_TOKEN"])
def test_of_the_key_only_the_variable_is_told(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "hf_secret")
    found = check_key()
    assert (found.state, found.text) == ("ok", f"there is one, from {variable}")
    monkeypatch.setenv(variable, "hf secret")
    found = check_key()
    assert found.state == "wrong"
    assert "secret" not in str(found)


def test_a_stored_key_is_told_and_that_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert check_key().text.startswith("none; ")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    assert check_key().text == "there is one, from the login of huggingface_hub"


@pytest.mark.parametrize(
    "endpoint", ["http://user:secret@a b/", "http://user:secret@host:x", "http://[::1", "secret", "http://\udce9"]
)
def test_an_endpoint_that_cannot_be_asked_is_wrong_and_its_password_is_not_shown(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    found = check_hub(seconds=1)
    assert found.state == "wrong"
    assert ":secret" not in found.text


@pytest.mark.usefixtures("swarm")
def test_what_strangers_say_is_shown_without_codes_for_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "check_python", lambda: Finding("a\x1b", "ok", "b\x9b", "c\x07"))
    assert "\nok    a\u241b: b\\u009b\n      c\u2407\n" in "\n" + run("doctor").stdout


def test_servers_need_an_environment_only_where_they_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(swarms, "found_python", lambda: None)
    found = check_servers()
    assert (found.state, found.mend) == ("note", "langchain-petals server install")
    monkeypatch.undo()
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", str(tmp_path / "none"))
    assert check_servers().state == "wrong"
