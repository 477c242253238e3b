"""What `langchain-petals swarm` prints; the swarm is a stand-in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command import run
from peer_addresses import ADDRESS

from langchain_petals import swarm as swarms

if TYPE_CHECKING:
    from typing_extensions import Self


class FakeServer:
    """A server of no swarm; its process is this one."""

    def __init__(self, blocks: range) -> None:
        self.blocks, self.pid, self.peer_id, self.alive = blocks, os.getpid(), f"Qm{blocks.start}", True
        self.log_path = Path(f"/logs/server-{blocks.start}.log")


class FakeSwarm:
    """A swarm of nobody.

    Attributes:
        made: The latest one.
        arguments: What it was made with.
        is_open: Whether it was not closed.
    """

    made: FakeSwarm

    def __init__(self, model: str | None, **arguments: Any) -> None:
        FakeSwarm.made = self
        self.arguments = {"model": model} | arguments
        self.servers = [FakeServer(range(2)), FakeServer(range(2, 4))]
        self.connection = {"model": "/it's/tiny", "initial_peers": [ADDRESS], "dht_prefix": "tiny"}
        self.dht_prefix = "tiny"
        self.is_open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False


@pytest.fixture(autouse=True)
def naps(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what happens while the command sleeps, one after the other; after that comes Ctrl-C."""
    naps: list[Any] = []

    def sleep(_: float) -> None:
        if not naps:
            raise KeyboardInterrupt
        naps.pop(0)()

    monkeypatch.setattr("langchain_petals.cli.swarms.swarm.sleep", sleep)
    monkeypatch.setattr(swarms, "LocalSwarm", FakeSwarm)
    monkeypatch.setenv("LANGCHAIN_PETALS_SERVER_PYTHON", sys.executable)
    return naps


def end(number: int) -> None:
    FakeSwarm.made.servers[number].alive = False


def test_the_connection_is_printed_in_three_forms_that_all_work() -> None:
    result = run("swarm")
    assert (result.exit_code, result.stderr) == (130, "")
    lines = result.stdout.splitlines()
    python = [line for line in lines if line.startswith(("from ", "llm = "))]
    namespace: dict[str, Any] = {}
    exec("\n".join(python), namespace)
    assert namespace["llm"].initial_peers == [ADDRESS]
    assert json.loads(next(line for line in lines if line.startswith("{"))) == FakeSwarm.made.connection
    assert [line for line in lines if line.startswith("export ")] == [
        "export LANGCHAIN_PETALS_MODEL='/it'\"'\"'s/tiny'",
        f"export LANGCHAIN_PETALS_INITIAL_PEERS={ADDRESS}",
        "export LANGCHAIN_PETALS_DHT_PREFIX=tiny",
    ]
    assert lines[-1] == "2 servers of 'tiny' are ready. Ctrl-C ends the swarm."
    assert not FakeSwarm.made.is_open


def test_json_is_one_document_and_nothing_else() -> None:
    result = run("swarm", "--json")
    found = json.loads(result.stdout)
    assert found["connection"] == FakeSwarm.made.connection
    assert found["environment"]["LANGCHAIN_PETALS_INITIAL_PEERS"] == ADDRESS
    assert [each["blocks"] for each in found["servers"]] == [[0, 2], [2, 4]]
    assert "Ctrl-C" in result.stderr


def test_exports_are_lines_for_a_shell_and_nothing_else() -> None:
    result = run("swarm", "--exports")
    assert all(line.startswith("export LANGCHAIN_PETALS_") for line in result.stdout.splitlines())
    assert len(result.stdout.splitlines()) == 3
    assert run("swarm", "--exports", "--json").exit_code == 2


def test_options_reach_the_swarm() -> None:
    run("swarm", "--model", "m", "--servers", "3", "--replicas", "2", "--hop-delay", "0.05", "--log-dir", "logs")
    assert FakeSwarm.made.arguments == {
        "model": "m",
        "servers": 3,
        "replicas": 2,
        "hop_delay": 0.05,
        "log_dir": Path("logs"),
    }
    run("swarm", "--initial-peers", f"{ADDRESS},{ADDRESS}", "--dht-prefix", "mine")
    assert FakeSwarm.made.arguments["initial_peers"] == [ADDRESS, ADDRESS]
    assert FakeSwarm.made.arguments["dht_prefix"] == "mine"


def test_a_server_that_ends_is_told_once(naps: list[Any]) -> None:
    naps += [lambda: end(1), lambda: None]
    lines = run("swarm").stdout.splitlines()
    assert lines[-1] == f"The server of blocks 2:4 (process {os.getpid()}) has ended."
    assert sum("has ended" in line for line in lines) == 1


def test_without_servers_the_command_ends_with_an_error(naps: list[Any]) -> None:
    naps += [lambda: (end(0), end(1))]
    result = run("swarm")
    assert (result.exit_code, FakeSwarm.made.is_open) == (1, False)
    assert result.stderr == "Error: All servers have ended. With --log-dir, their logs are kept.\n"


def test_without_an_environment_for_servers_the_command_that_makes_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swarms, "found_python", lambda: None)
    result = run("swarm")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`langchain-petals server install`" in result.stderr
