"""`langchain-petals status` on a swarm of announcements; the model's config is real."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from announced_swarm import AnnouncedSwarm
from command import run
from peer_addresses import ADDRESS
from scripted_swarm import ScriptedServer, peer_id

from langchain_petals import swarm as swarms
from langchain_petals.engine import loading
from langchain_petals.errors import SwarmUnreachableError

TINY = str(Path(swarms.__file__).with_name("tiny"))


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> AnnouncedSwarm:
    """Put a swarm of two servers in the place of all others."""
    models = {"tiny": {"num_blocks": 4}, "big": {"num_blocks": 9_000, "repository": "https://huggingface.co/some/big"}}
    swarm = AnnouncedSwarm(ScriptedServer(1, 0, 2), ScriptedServer(2, 2, 4), models=models)
    monkeypatch.setattr(loading, "join_swarm", swarm.join)
    return swarm


def test_a_complete_model_is_usable_and_the_exit_code_0(swarm: AnnouncedSwarm) -> None:
    result = run("status", TINY, "--initial-peers", ADDRESS)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("tiny: 4 blocks, 2 servers, on a private swarm\n")
    assert "\nUsable. All 4 blocks are served." in result.stdout
    assert "\x1b" not in result.stdout
    assert (swarm.joined, swarm.users) == ([[ADDRESS]], 0)


def test_missing_blocks_are_exit_code_1(swarm: AnnouncedSwarm) -> None:
    swarm.round_trips[peer_id(2)] = math.inf
    result = run("status", TINY, "--initial-peers", ADDRESS)
    assert result.exit_code == 1
    assert "Not usable." in result.stdout
    assert swarm.users == 0


def test_json_is_one_document_and_nothing_else(swarm: AnnouncedSwarm) -> None:
    found = json.loads(run("status", TINY, "--json").stdout)
    assert (found["usable"], found["blocks"], found["dht_prefix"]) == (True, 4, "tiny")
    assert [each["peer_id"] for each in found["servers"]] == [peer_id(1), peer_id(2)]
    swarm.round_trips[peer_id(2)] = math.inf
    result = run("status", TINY, "--json")
    assert (result.exit_code, json.loads(result.stdout)["missing"]) == (1, [2, 3])


def test_peers_and_prefix_come_from_the_environment(swarm: AnnouncedSwarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_INITIAL_PEERS", ADDRESS)
    monkeypatch.setenv("LANGCHAIN_PETALS_DHT_PREFIX", "mine")
    result = run("status", TINY, "--json")
    assert swarm.joined == [[ADDRESS]]
    assert json.loads(result.stdout)["dht_prefix"] == "mine"


@pytest.mark.parametrize(
    "arguments", [["some/big", "--json"], ["big", "--json"], ["x", "--dht-prefix", "big", "--json"]]
)
@pytest.mark.usefixtures("swarm", "offline")
def test_a_model_without_files_is_known_by_what_the_swarm_announces(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = json.loads(run("status", *arguments).stdout)
    assert (found["dht_prefix"], found["blocks"]) == ("big", 9_000)


@pytest.mark.usefixtures("swarm")
def test_a_model_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    result = run("status", str(tmp_path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--initial-peers", "10.1.2.3"], "initial_peers: '10.1.2.3' is not a multiaddress"),
        (["--dht-prefix", "a.b"], "dht_prefix='a.b' must be a name without '.'"),
    ],
)
def test_an_impossible_connection_is_an_error(swarm: AnnouncedSwarm, arguments: list[str], told: str) -> None:
    result = run("status", TINY, *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {told}")
    assert swarm.joined == []


@pytest.mark.parametrize("arguments", [["--watch"], ["--dht-prefix", "tiny"]])
def test_what_is_about_one_model_needs_its_name(swarm: AnnouncedSwarm, arguments: list[str]) -> None:
    result = run("status", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name it" in result.stderr
    assert swarm.joined == []


def test_without_a_model_those_of_the_swarm_are_listed(swarm: AnnouncedSwarm) -> None:
    del swarm.servers[peer_id(2)]
    result = run("status")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["model", "blocks", "servers", "state"]
    assert lines[1] == ["some/big", "9000", "?", "not", "looked", "at"]
    assert lines[2] == ["tiny", "4", "1", "missing:", "2:4"]
    assert swarm.joined == [[]]


@pytest.mark.usefixtures("swarm")
def test_the_list_of_models_as_json() -> None:
    assert json.loads(run("status", "--json").stdout) == {
        "models": [
            {
                "dht_prefix": "big",
                "blocks": 9_000,
                "repository": "https://huggingface.co/some/big",
                "servers": None,
                "missing": None,
            },
            {"dht_prefix": "tiny", "blocks": 4, "repository": None, "servers": 2, "missing": []},
        ]
    }


def test_a_swarm_without_models_is_exit_code_1(swarm: AnnouncedSwarm) -> None:
    swarm.models.clear()
    result = run("status")
    assert (result.exit_code, result.stdout) == (1, "The swarm announces no model.\n")


def test_a_swarm_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        msg = "no peer answers"
        raise SwarmUnreachableError(msg)

    monkeypatch.setattr(loading, "join_swarm", fail)
    result = run("status", TINY, "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no peer answers\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_watching_draws_again_until_ctrl_c_and_goes_on_when_the_swarm_is_away(
    swarm: AnnouncedSwarm, monkeypatch: pytest.MonkeyPatch, *, as_json: bool
) -> None:
    naps: list[float] = []

    def sleep(seconds: float) -> None:
        naps.append(seconds)
        swarm.is_open = len(naps) != 1
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("langchain_petals.cli.swarms.status.sleep", sleep)
    result = run("status", TINY, "--watch", "--every", "7", *(["--json"] if as_json else []))
    assert (result.exit_code, naps, swarm.users) == (130, [7.0] * 3, 0)
    if as_json:
        found: list[Any] = [json.loads(line)["usable"] for line in result.stdout.splitlines()]
        assert found == [True, False, True]
    else:
        assert result.stdout.count("\nUsable.") == 2
        assert "has been closed" in result.stdout
