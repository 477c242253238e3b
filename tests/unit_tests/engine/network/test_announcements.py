"""Announcements come from strangers: what is valid becomes a server, what is not touches nobody else."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from langchain_petals.engine.network.announcements import online_servers

PEER, OTHER = (f"12D3KooW{letter * 44}" for letter in "AB")
DETAILS = {
    "start_block": 2,
    "end_block": 5,
    "version": "2.2.0.post1",
    "inference_rps": 120.5,
    "adapters": ["some/adapter"],
    "cache_tokens_left": 4096,
    "next_pings": {OTHER: 0.05},
    "public_name": "me",
    "torch_dtype": "bfloat16",
}


def announced(details: Any = None, *, state: Any = 2, throughput: Any = 3.0) -> tuple[Any, ...]:
    return state, throughput, DETAILS if details is None else details


def test_a_server_is_as_it_announces_itself() -> None:
    [server] = online_servers([(block, PEER, announced(), 1.0) for block in (2, 3, 4)], 8)
    assert (server.peer_id, server.start, server.end) == (PEER, 2, 5)
    assert (server.blocks_per_second, server.cache_tokens_left) == (120.5, 4096)
    assert server.next_pings == {OTHER: 0.05}
    assert server.adapters == {"some/adapter"}
    assert not server.can_roll_back
    assert server.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "name", [None, "", "auto", "int8", "float64", "torch.bfloat16", "b" * 99, 16, True, ["bfloat16"], {}], ids=str
)
def test_a_server_with_a_type_that_is_not_known_is_a_server_without_one(name: Any) -> None:
    [server] = online_servers([(2, PEER, announced(DETAILS | {"torch_dtype": name}), 1.0)], 8)
    assert server.dtype is None


def test_a_server_may_announce_no_type() -> None:
    details = {name: value for name, value in DETAILS.items() if name != "torch_dtype"}
    [server] = online_servers([(2, PEER, announced(details), 1.0)], 8)
    assert server.dtype is None


@pytest.mark.parametrize(
    ("version", "can_roll_back"),
    [
        ("2.2.0.post1", False),
        ("2.3.0.dev2", True),
        ("2.3", True),
        ("3.0", True),
        ("10.1", True),
        (None, False),
        ("", False),
        ("2", False),
        ("two.three", False),
        ("2.x", False),
        ("²", False),
    ],
)
def test_servers_of_petals_2_3_can_roll_back(version: str | None, *, can_roll_back: bool) -> None:
    [server] = online_servers([(2, PEER, announced(DETAILS | {"version": version}), 1.0)], 8)
    assert server.can_roll_back is can_roll_back


def test_the_latest_announcement_counts() -> None:
    moved = announced(DETAILS | {"start_block": 0, "end_block": 2})
    [server] = online_servers([(0, PEER, moved, 2.0), (2, PEER, announced(), 1.0), (3, PEER, announced(), 1.0)], 8)
    assert (server.start, server.end) == (0, 2)


@pytest.mark.parametrize("state", [0, 1])
def test_a_server_that_is_not_online_is_no_server(state: int) -> None:
    assert online_servers([(2, PEER, announced(state=state), 2.0), (3, PEER, announced(), 1.0)], 8) == []


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "online",
        (),
        {},
        {2: 3.0},
        (2,),
        (2, 3.0),
        (2, 3.0, None),
        (2, 3.0, []),
        announced({}),
        announced(DETAILS | {5: 5}),
        announced(state="2"),
        announced(state=True),
        announced(state=7),
        announced(throughput=math.nan),
        announced(throughput=-1.0),
        announced(throughput=math.inf),
        announced(throughput="fast"),
        announced(DETAILS | {"start_block": -1}),
        announced(DETAILS | {"start_block": 3.0}),
        announced(DETAILS | {"start_block": "2"}),
        announced(DETAILS | {"end_block": 2}),
        announced(DETAILS | {"end_block": 9}),
        announced(DETAILS | {"end_block": 10**30}),
        announced(DETAILS | {"start_block": 3}),
        announced(DETAILS | {"inference_rps": math.nan}),
        announced(DETAILS | {"inference_rps": -5.0}),
        announced(DETAILS | {"cache_tokens_left": -1}),
        announced(DETAILS | {"cache_tokens_left": "much"}),
        announced(DETAILS | {"cache_tokens_left": 10**400}),
        announced(DETAILS | {"inference_rps": 10**400}),
        announced(DETAILS | {"inference_rps": 1e300}),
        announced(DETAILS | {"next_pings": {OTHER: 10**400}}),
        announced(DETAILS | {"next_pings": {"x" * 10_000: 0.1}}),
        announced(DETAILS | {"adapters": ["x" * 10_000]}),
        announced(DETAILS | {"adapters": ["x"] * 10_000}),
        announced(DETAILS | {"next_pings": [0.1]}),
        announced(DETAILS | {"next_pings": {OTHER: math.nan}}),
        announced(DETAILS | {"next_pings": {f"p{number}": 0.1 for number in range(100_000)}}),
        announced(DETAILS | {"adapters": "some/adapter"}),
        announced(DETAILS | {"adapters": [5]}),
        announced(DETAILS | {"version": 2.3}),
        announced(DETAILS | {"version": "2" * 10_000}),
        announced(DETAILS | {"peer_id": OTHER, "start_block": None}),
    ],
)
def test_an_invalid_announcement_is_left_out_and_no_other(value: Any) -> None:
    servers = online_servers([(2, PEER, value, 9.0), (2, OTHER, announced(), 1.0)], 8)
    assert [server.peer_id for server in servers] == [OTHER]


@pytest.mark.parametrize("peer_id", [None, 5, b"12D3KooW", "", "somebody", PEER + "A", PEER[:-1] + "0", ("a",)])
def test_what_is_no_peer_id_is_left_out(peer_id: Any) -> None:
    assert online_servers([(2, peer_id, announced(), 1.0)], 8) == []


def test_a_server_cannot_announce_itself_under_another_name() -> None:
    [server] = online_servers([(2, PEER, announced(DETAILS | {"peer_id": OTHER, "state": 0}), 1.0)], 8)
    assert server.peer_id == PEER


def test_a_server_may_have_lost_pings_to_others() -> None:
    [server] = online_servers([(2, PEER, announced(DETAILS | {"next_pings": {OTHER: math.inf}}), 1.0)], 8)
    assert server.next_pings == {OTHER: math.inf}


@pytest.mark.parametrize("speed", [0.0, 5e-324, 1e-300])
def test_a_server_that_claims_no_speed_has_a_finite_cost(speed: float) -> None:
    [server] = online_servers([(2, PEER, announced(DETAILS | {"inference_rps": speed}), 1.0)], 8)
    assert 0 < 1 / server.blocks_per_second <= 1000


def strangers(number: int, block: int) -> list[tuple[int, Any, Any, float]]:
    digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    names = (f"12D3KooW{'C' * 41}{''.join(three)}" for three in itertools.product(digits, repeat=3))
    return [(block, name, announced(), 1.0) for name in itertools.islice(names, number)]


def test_thousands_of_announcements_that_name_no_server_change_nothing() -> None:
    records = [(2, f"server {number}", announced(), 1.0) for number in range(50_000)]
    [server] = online_servers([*records, (2, PEER, announced(), 1.0)], 8)
    assert server.peer_id == PEER


def test_of_too_many_announcements_under_a_block_those_of_known_servers_are_kept() -> None:
    records = strangers(6000, 2)
    servers = online_servers([*records, (2, PEER, announced(), 1.0), (3, OTHER, announced(), 1.0)], 8, known={PEER})
    assert {PEER, OTHER} < {server.peer_id for server in servers}
    assert len(servers) == 4001
