"""`server run`: what it prints for those who join, and for programs that use the swarm."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import PEER

from langchain_petals.cli.servers.server_connection import Connection, best_first
from langchain_petals.cli.servers.server_options import Order
from langchain_petals.swarm import BUNDLED_MODEL

if TYPE_CHECKING:
    from pathlib import Path


def address(host: str, port: int = 31337) -> str:
    return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}/p2p/{PEER}"


def connection(*hosts: str, **of_order: Any) -> Connection:
    known: dict[str, Any] = {
        "model": BUNDLED_MODEL,
        "total": 4,
        "dht_prefix": "tiny",
        "initial_peers": (),
        "arguments": (),
        "key": None,
    }
    return Connection(Order(**known | of_order), PEER, best_first([address(host) for host in hosts]))


def test_addresses_that_most_others_can_reach_come_first() -> None:
    hosts = ["127.0.0.1", "192.168.1.20", "::1", "2001:4860::7", "fe80::1", "8.8.4.4", "10.0.0.3"]
    ranked = best_first([address(host) for host in hosts])
    assert [each.split("/")[2] for each in ranked] == [
        "8.8.4.4", "192.168.1.20", "10.0.0.3", "2001:4860::7", "127.0.0.1", "::1"
    ]  # fmt: skip


def test_others_join_through_an_address_that_is_not_this_machines_alone() -> None:
    made = connection("127.0.0.1", "192.168.1.20", "10.0.0.3")
    assert made.join == f"langchain-petals server run --initial-peers {address('192.168.1.20')}"
    assert made.other_addresses == [address("10.0.0.3")]
    assert not made.is_on_this_machine_alone


def test_a_server_of_this_machine_alone_is_joined_on_it() -> None:
    made = connection("127.0.0.1")
    assert made.is_on_this_machine_alone
    assert made.initial_peers == [address("127.0.0.1")]


def test_the_addresses_that_a_server_has_joined_through_stay_in_use() -> None:
    first = address("192.168.1.20")
    assert connection("192.168.1.21", initial_peers=(first,)).initial_peers == [address("192.168.1.21"), first]
    assert connection(initial_peers=(first,)).initial_peers == [first]  # behind a relay it has no address of its own


def test_a_server_of_the_public_swarm_needs_no_addresses() -> None:
    made = connection("8.8.4.4", model="bigscience/bloom-560m", dht_prefix=None, initial_peers=None)
    assert made.join == "langchain-petals server run bigscience/bloom-560m"
    assert made.arguments == {"model": "bigscience/bloom-560m"}
    assert made.exports == ["export LANGCHAIN_PETALS_MODEL=bigscience/bloom-560m"]


def test_a_folder_is_another_one_on_another_machine_and_its_prefix_is_the_same(tmp_path: Path) -> None:
    made = connection("192.168.1.20", model=str(tmp_path / "my model"), dht_prefix="my-model")
    assert made.join == (
        f"langchain-petals server run MODEL_FOLDER --initial-peers {address('192.168.1.20')} --dht-prefix my-model"
    )
    assert made.status == (
        f"langchain-petals status {shlex.quote(str(tmp_path / 'my model'))} --initial-peers "
        f"{address('192.168.1.20')} --dht-prefix my-model"
    )


@pytest.mark.parametrize("model", [BUNDLED_MODEL, '/models/it\'s "odd"'])
def test_the_python_lines_make_a_model_with_the_connections_arguments(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = connection("192.168.1.20", model=model)
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("langchain_petals.Petals", lambda **arguments: given.append(arguments))
    exec("\n".join(made.python), {})
    assert given == [made.arguments]


def test_a_shell_reads_the_variables_as_they_are_meant() -> None:
    made = connection("192.168.1.20", model="/models/it's", dht_prefix="its", initial_peers=(address("10.0.0.3"),))
    assert [shlex.split(line)[1] for line in made.exports] == [
        "LANGCHAIN_PETALS_MODEL=/models/it's",
        f"LANGCHAIN_PETALS_INITIAL_PEERS={address('192.168.1.20')},{address('10.0.0.3')}",
        "LANGCHAIN_PETALS_DHT_PREFIX=its",
    ]
