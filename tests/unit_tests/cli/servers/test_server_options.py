"""`server run`: what its options ask Petals for, and which of them are refused."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from scripted_server import PEER

from langchain_petals.cli.servers.server_options import read_order
from langchain_petals.errors import InvalidRequestError
from langchain_petals.swarm import BUNDLED_MODEL

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = f"/ip4/203.0.113.7/tcp/31337/p2p/{PEER}"


def arguments(*words: str, **options: Any) -> str:
    return " ".join(read_order(words, {}, **{"new_swarm": True} | options).arguments)


def refusal(*words: str, **options: Any) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        read_order(words, {}, **{"new_swarm": True} | options)
    return str(caught.value)


def test_without_a_model_the_bundled_one_is_served() -> None:
    order = read_order((), {}, new_swarm=True)
    assert order.is_bundled
    assert (order.total, order.dht_prefix, order.initial_peers) == (4, "tiny", ())
    assert order.arguments == (BUNDLED_MODEL, "--dht_prefix", "tiny", "--new_swarm")


def test_the_bundled_model_does_not_go_into_the_public_swarm() -> None:
    assert "--new-swarm or --initial-peers" in refusal(new_swarm=False)


def test_a_named_model_without_a_swarm_goes_into_the_public_one() -> None:
    order = read_order([BUNDLED_MODEL], {}, dht_prefix="mine")
    assert order.initial_peers is None
    assert not {"--new_swarm", "--initial_peers"} & set(order.arguments)


def test_addresses_of_a_swarm_may_be_repeated_or_separated_by_commas() -> None:
    second = ADDRESS.replace("203.0.113.7", "203.0.113.8")
    for given in ([ADDRESS, second], [f"{ADDRESS},{second}"], [f"{ADDRESS} {second}"]):
        order = read_order((), {}, initial_peers=given)
        assert order.initial_peers == (ADDRESS, second)
        assert order.arguments[-3:] == ("--initial_peers", ADDRESS, second)


def test_a_wrong_address_is_refused_with_the_form_of_a_right_one() -> None:
    assert "the form is /ip4/" in refusal(new_swarm=False, initial_peers=["203.0.113.7:31337"])


def test_a_swarm_is_either_new_or_joined() -> None:
    assert "one of the two" in refusal(initial_peers=[ADDRESS])


def test_petals_own_options_are_handed_on_by_either_spelling() -> None:
    for spelling in ("--max-alloc-timeout", "--max_alloc_timeout"):
        assert arguments(BUNDLED_MODEL, spelling, "5").endswith("--new_swarm --max_alloc_timeout 5")
    assert arguments("--adapters", "a/b", "c/d").endswith("--adapters a/b c/d")
    assert arguments("--public-name=Ada-Lovelace").endswith("--public_name=Ada-Lovelace")


def test_a_word_between_model_and_options_is_refused() -> None:
    assert "repeat --initial-peers" in refusal(BUNDLED_MODEL, ADDRESS)
    assert "'0:2' stands neither" in refusal(BUNDLED_MODEL, "0:2")


@pytest.mark.parametrize("option", ["--token", "--use-auth-token", "--use_auth_token"])
def test_the_hubs_key_is_not_taken_from_the_command_line_and_not_repeated(option: str) -> None:
    refused = refusal(BUNDLED_MODEL, option, "hf_secret")
    assert "HF_TOKEN" in refused
    assert "hf_secret" not in refused


def test_blocks_are_a_span_or_a_number() -> None:
    assert "--block_indices 1:3" in arguments(blocks="1:3")
    assert "--num_blocks 3" in arguments(blocks="3")


@pytest.mark.parametrize("blocks", ["0:5", "3:3", "5", "0", "-1", "all", "1-3", ""])
def test_blocks_that_the_model_does_not_have_are_refused(blocks: str) -> None:
    assert "span of this model's 4 blocks, such as 0:4, nor how many it should hold, 1 to 4" in refusal(blocks=blocks)


@pytest.mark.enable_socket
def test_host_and_port_say_where_to_listen() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"--port {port}" in arguments(port=port)
    assert f"--host_maddrs /ip4/127.0.0.1/tcp/{port}" in arguments(host="127.0.0.1", port=port)
    assert "--host_maddrs /ip6/::1/tcp/0" in arguments(host="::1")
    assert "is not an IP address" in refusal(host="example.org")


@pytest.mark.enable_socket
def test_a_port_that_is_taken_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port}" in refusal(host="127.0.0.1", port=port)


@pytest.mark.parametrize(
    ("announced", "address"),
    [
        ("203.0.113.20:443", "/ip4/203.0.113.20/tcp/443"),
        ("home.example.org:443", "/dns/home.example.org/tcp/443"),
        ("[2001:db8::7]:443", "/ip6/2001:db8::7/tcp/443"),
        ("/dns4/home.example.org/tcp/443", "/dns4/home.example.org/tcp/443"),
    ],
)
def test_an_announced_address_is_that_of_the_router(announced: str, address: str) -> None:
    assert f"--announce_maddrs {address} --new_swarm" in arguments(announce=[announced])


@pytest.mark.enable_socket
def test_an_announced_address_takes_the_port_that_is_listened_at() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert f"/ip4/203.0.113.20/tcp/{port}" in arguments(announce=["203.0.113.20"], port=port)
    assert "give --port, and forward that port" in refusal(announce=["203.0.113.20"])


@pytest.mark.parametrize("announced", ["a b:1", "/ip4/1.2.3.4", "/ip4/300.1.1.1/tcp/1", "1.2.3.4:99999"])
def test_an_announced_address_that_cannot_be_one_is_refused(announced: str) -> None:
    assert f"--announce {announced!r} is not an address" in refusal(announce=[announced])


def test_an_identity_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert f"--identity_path {tmp_path / 'first.id'}" in arguments(identity_path=tmp_path / "first.id")
    assert "make it first" in refusal(identity_path=tmp_path / "nowhere" / "first.id")


def test_a_prefix_with_petals_separators_is_refused_and_a_folders_name_is_made_one(tmp_path: Path) -> None:
    assert "dht_prefix='a.b'" in refusal(dht_prefix="a.b")
    folder = tmp_path / "my model-1.5"
    folder.symlink_to(BUNDLED_MODEL)
    assert read_order([str(folder)], {}, new_swarm=True).dht_prefix == "my-model-1-5"
