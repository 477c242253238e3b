"""One connection for each swarm in a process, and nothing left when it ends; against a real peer and a real p2pd."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bootstrap_peer import BootstrapPeer
from forks import FORK_WARNING, in_child

from langchain_petals.engine.network import Network, Networks, network, p2pd
from langchain_petals.engine.network.hivemind_parts import P2P
from langchain_petals.engine.network.p2pd import P2PDaemon
from langchain_petals.errors import SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PEER_ID = "12D3KooWGAiDtiq61JbHg1QCnmvVYZM1KpAeqRgRkjVTE5RLpwip"
NOBODY = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}"


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with BootstrapPeer(tmp_path_factory.mktemp("peer")) as peer:
        yield peer.address


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder in which this process's sockets are; its path is short enough for them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def threads_of_networks() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "langchain-petals-network"]


async def answer() -> int:
    return 42


def test_users_of_the_same_peers_share_a_network_until_the_last_one_gives_it_up(peer: str, sockets: Path) -> None:
    networks = Networks()
    first, give_up_first = networks.join([peer], 30)
    second, give_up_second = networks.join([peer], 30)
    assert first is second
    assert len(list(sockets.iterdir())) == len(threads_of_networks()) == 1
    give_up_first()
    assert second.wait_for(answer(), 30) == 42
    give_up_second()
    assert not second.is_open
    assert not list(sockets.iterdir())
    assert not threads_of_networks()
    third, give_up_third = networks.join([peer], 30)
    assert third is not second
    assert third.is_open
    give_up_third()


def test_threads_that_join_the_same_swarm_at_the_same_time_share_one_network(peer: str, sockets: Path) -> None:
    networks, together = Networks(), threading.Barrier(4)

    def join(_: int) -> tuple[Network, Any]:
        together.wait(30)
        return networks.join([peer], 30)

    with ThreadPoolExecutor(4) as threads:
        joined = list(threads.map(join, range(4)))
    assert len({id(network) for network, _ in joined}) == len(list(sockets.iterdir())) == 1
    for _, give_up in joined:
        give_up()
    assert not list(sockets.iterdir())


def test_joining_one_swarm_does_not_wait_for_another(peer: str, sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, begun, go_on = Networks(), threading.Event(), threading.Event()
    join = Network._join

    async def join_slowly(self: Network, timeout: float) -> None:
        if self.initial_peers == (NOBODY,):
            begun.set()
            await asyncio.get_running_loop().run_in_executor(None, go_on.wait, 30)
        await join(self, timeout)

    monkeypatch.setattr(Network, "_join", join_slowly)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(networks.join, [NOBODY], 30)
        assert begun.wait(30)
        _, give_up = networks.join([peer], 30)
        assert not slow.done()
        give_up()
        go_on.set()
        assert isinstance(slow.exception(30), SwarmUnreachableError)
    assert not list(sockets.iterdir())


def test_a_failed_join_says_why_and_leaves_nothing(sockets: Path) -> None:
    networks = Networks()
    for _ in range(2):
        with pytest.raises(SwarmUnreachableError, match=r"/ip4/127\.0\.0\.1/tcp/1: .*refused\. Check that they are"):
            networks.join([NOBODY], 30)
    assert not list(sockets.iterdir())
    assert not threads_of_networks()


def test_a_peer_with_another_id_is_named(peer: str, sockets: Path) -> None:
    address, actual = peer.rsplit("/", 1)
    with pytest.raises(SwarmUnreachableError, match=f"the peer there is {actual}, not the one that the address names"):
        Network([f"{address}/{PEER_ID}"], 30)
    assert not list(sockets.iterdir())


def ended_p2pd(initial_peers: Sequence[str], timeout: float) -> P2PDaemon:
    daemon = P2PDaemon(initial_peers, timeout)
    daemon._process.wait()
    return daemon


def test_a_p2pd_that_ends_at_once_says_why(tmp_path: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "p2pd"
    program.write_text("#!/bin/sh\necho 'no such file: libc.so.6'; exit 127\n")
    program.chmod(0o700)
    monkeypatch.setattr(p2pd, "P2PD", str(program))
    monkeypatch.setattr(network, "P2PDaemon", ended_p2pd)
    with pytest.raises(SwarmUnreachableError, match=r"Could not join .*no such file: libc\.so\.6"):
        Network([NOBODY], 30)
    assert not list(sockets.iterdir())
    assert not threads_of_networks()


@pytest.mark.parametrize("error", [asyncio.IncompleteReadError(b"", 1), asyncio.CancelledError(), KeyError("a")])
def test_whatever_hivemind_raises_while_it_joins_is_a_swarm_that_cannot_be_reached(
    error: BaseException, peer: str, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(P2P, "replicate", fail)
    with pytest.raises(SwarmUnreachableError, match=f"Could not join .*{type(error).__name__}"):
        Network([peer], 30)
    assert not list(sockets.iterdir())


@pytest.mark.parametrize("folder", ["/" + "f" * 73, "/" + "f" * 74, "/" + "é" * 40])
def test_the_path_of_a_socket_is_short_enough_for_macos(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", folder)
    path = p2pd._socket_folder() / f"petals-{'0' * 16}.sock"
    assert len(os.fsencode(path)) <= 103


def test_one_reachable_peer_is_enough(peer: str, sockets: Path) -> None:
    network = Network([NOBODY, peer], 30)
    assert network.wait_for(answer(), 30) == 42
    network.leave()
    assert not list(sockets.iterdir())


def test_leaving_ends_the_waits_of_other_threads_with_an_error(peer: str) -> None:
    network, begun = Network([peer], 30), threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lambda: network.wait_for(wait(), 300))
        assert begun.wait(30)
        network.leave()
        with pytest.raises(SwarmUnreachableError, match="has been closed"):
            waiting.result(30)
    network.leave()
    network.start(answer())
    with pytest.raises(SwarmUnreachableError, match="has been closed"):
        network.wait_for(answer(), 30)


def test_a_wait_that_ends_early_cancels_its_work(peer: str) -> None:
    network, begun, cancelled = Network([peer], 30), threading.Event(), threading.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises((TimeoutError, concurrent.futures.TimeoutError)):
        network.wait_for(wait(), 0)
    network.wait_for(answer(), 30)
    assert cancelled.is_set() or not begun.is_set()
    network.leave()


def test_a_network_whose_p2pd_was_killed_is_joined_anew(peer: str, sockets: Path) -> None:
    networks = Networks()
    first, give_up_first = networks.join([peer], 30)
    assert first._daemon is not None
    first._daemon._process.kill()
    first._daemon._process.wait()
    assert not first.is_open
    second, give_up_second = networks.join([peer], 30)
    assert second.wait_for(answer(), 30) == 42
    give_up_first()
    assert second.is_open
    give_up_second()
    assert not list(sockets.iterdir())


def test_initial_peers_that_come_back_are_found_again(tmp_path: Path) -> None:
    with BootstrapPeer(tmp_path) as peer:
        network = Network([peer.address], 30)
        try:
            peer.kill()
            assert network.wait_for(network.records(["a.0"]), 60) == []
            assert not network._node.protocol.routing_table.uid_to_peer_id
            peer.start()
            while not network._node.protocol.routing_table.uid_to_peer_id:  # p2pd dials again after some seconds
                network.wait_for(network.records(["a.0"]), 60)
        finally:
            network.leave()


@pytest.mark.filterwarnings(FORK_WARNING)
def test_the_child_of_a_fork_joins_by_itself_and_the_parents_network_goes_on(peer: str, sockets: Path) -> None:
    networks = Networks()
    network, give_up = networks.join([peer], 30)

    def use() -> None:
        assert not network.is_open
        network.leave()
        give_up()
        own, give_up_own = networks.join([peer], 30)
        assert own.wait_for(answer(), 30) == 42
        assert len(list(sockets.iterdir())) == 2
        give_up_own()

    in_child(use)
    assert network.wait_for(answer(), 30) == 42
    assert network.wait_for(network.records(["a.0"]), 30) == []
    assert len(list(sockets.iterdir())) == 1
    give_up()
    assert not list(sockets.iterdir())


@pytest.mark.filterwarnings(FORK_WARNING)
def test_a_child_does_not_wait_for_a_join_of_its_parent(peer: str) -> None:
    networks, begun, go_on = Networks(), threading.Event(), threading.Event()

    def make() -> Network:
        begun.set()
        go_on.wait(60)
        return Network([peer], 30)

    def join_and_leave() -> None:
        _, give_up = networks.join([peer], 30)
        give_up()

    with ThreadPoolExecutor(1) as threads:
        joining = threads.submit(networks._joined.get, (peer,), make)
        assert begun.wait(30)
        with networks._lock:
            in_child(join_and_leave)
        go_on.set()
        joining.result(60).leave()
