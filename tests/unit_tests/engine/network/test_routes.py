"""Routes of a model: when announcements are read again, which servers are avoided, and what is kept of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
from scripted_swarm import ScriptedNetwork, ScriptedServer, peer_id

from langchain_petals.engine.network import CacheLimitError, Routes, routes
from langchain_petals.engine.network.hivemind_parts import MSGPackSerializer
from langchain_petals.errors import BlocksMissingError, SwarmError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence

BLOCKS = 4


class Clock:
    """Replaces the clock of `routes`; its time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(routes, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_FIRST_PAUSE", 0)


def whole(number: int, **announces: Any) -> ScriptedServer:
    """Return a server of the whole model; those of lower numbers are faster."""
    return ScriptedServer(number, 0, BLOCKS, speed=9000 - number, **announces)


def routes_of(network: ScriptedNetwork, **options: Any) -> Routes:
    real: Any = network
    return Routes(real, "model", BLOCKS, **options)


def chosen(routes: Routes, needed: int = 100, *, timeout: float = 30) -> list[str]:
    spans, _ = routes.choose(2 * needed, needed, timeout)
    return [span.server.peer_id for span in spans]


def settled(network: ScriptedNetwork) -> None:
    """Wait until the network's event loop has done what was started."""

    async def take_turns() -> None:
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.gather(*others, return_exceptions=True)

    network.wait_for(take_turns(), 30)


# ---- reading


def test_announcements_are_read_by_the_first_call_only() -> None:
    network = ScriptedNetwork(whole(0))
    routes = routes_of(network)
    assert [chosen(routes) for _ in range(3)] == [[peer_id(0)]] * 3
    assert network.readings == 1


def test_the_first_call_waits_for_a_reading_that_is_under_way() -> None:
    network, begun, released = ScriptedNetwork(whole(0)), threading.Event(), threading.Event()

    async def wait(_: int) -> None:
        begun.set()
        await asyncio.to_thread(released.wait)

    network.reading = wait
    routes = routes_of(network)
    routes.read_ahead()
    assert begun.wait(30)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(chosen, routes)
        released.set()
        assert call.result(30) == [peer_id(0)]
    assert network.readings == 1


def test_old_announcements_are_read_again_in_the_background(clock: Clock) -> None:
    network, released = ScriptedNetwork(whole(1)), threading.Event()
    routes = routes_of(network)
    chosen(routes)
    settled(network)

    async def wait(_: int) -> None:
        await asyncio.to_thread(released.wait)

    network.reading = wait
    network.servers[peer_id(0)] = whole(0)
    clock.now += 61
    assert [chosen(routes) for _ in range(3)] == [[peer_id(1)]] * 3  # none has waited
    released.set()
    settled(network)
    assert network.readings == 2
    assert chosen(routes) == [peer_id(0)]


@pytest.mark.parametrize("age", [61, 121], ids=["in the background", "after a pause"])
def test_old_announcements_are_used_if_they_cannot_be_read_again(clock: Clock, age: float) -> None:
    network = ScriptedNetwork(whole(0))
    routes = routes_of(network)
    chosen(routes)

    async def fail(_: int) -> None:
        raise OSError

    network.reading = fail
    clock.now += age
    assert [chosen(routes) for _ in range(3)] == [[peer_id(0)]] * 3
    settled(network)


def test_a_call_after_a_pause_waits_for_announcements_that_have_not_expired(clock: Clock) -> None:
    network = ScriptedNetwork(whole(1))
    routes = routes_of(network)
    chosen(routes)
    settled(network)
    network.servers[peer_id(0)] = whole(0)
    clock.now += 121
    assert chosen(routes) == [peer_id(0)]


def test_calls_at_the_same_time_share_a_reading() -> None:
    calls, all_ask = 8, asyncio.Event()

    class Counting(Routes):
        asked = 0

        async def _read_again(self) -> None:
            self.asked += 1
            if self.asked == calls:
                all_ask.set()
            await super()._read_again()

    network: Any = ScriptedNetwork(whole(0))
    routes = Counting(network, "model", BLOCKS)

    async def wait_for_the_others(_: int) -> None:
        await all_ask.wait()

    network.reading = wait_for_the_others
    with concurrent.futures.ThreadPoolExecutor(calls) as pool:
        assert list(pool.map(lambda _: chosen(routes), range(calls))) == [[peer_id(0)]] * calls
    assert network.readings == 1


def test_a_dht_that_gives_no_answer_is_an_error_after_the_time_out() -> None:
    network = ScriptedNetwork(whole(0))

    async def wait(_: int) -> None:
        await asyncio.sleep(3600)

    network.reading = wait
    routes = routes_of(network)
    with pytest.raises(SwarmUnreachableError, match=r"no routes within 0.05 s\. Check that the initial peers"):
        chosen(routes, timeout=0.05)
    with pytest.raises(SwarmUnreachableError, match=r"no routes within 0.05 s"):
        routes.refresh(0.05)
    settle_by_cancelling(network)


def settle_by_cancelling(network: ScriptedNetwork) -> None:
    """Cancel what goes on in the background."""

    async def cancel() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    network.wait_for(cancel(), 30)


@pytest.mark.parametrize("missing", [range(4), range(2, 4)], ids=["all", "half"])
def test_blocks_that_nobody_joins_for_are_an_error_after_the_time_out(missing: range) -> None:
    network = ScriptedNetwork(*([ScriptedServer(0, 0, 2)] if missing.start else []))
    with pytest.raises(BlocksMissingError) as caught:
        chosen(routes_of(network), timeout=0.05)
    assert caught.value.blocks == tuple(missing)
    assert network.readings > 1


def test_blocks_that_went_missing_are_waited_for(clock: Clock) -> None:
    network = ScriptedNetwork(whole(0))
    routes = routes_of(network)
    chosen(routes)
    del network.servers[peer_id(0)]
    routes.refresh(30)

    async def join(reading: int) -> None:
        if reading == 5:
            network.servers[peer_id(1)] = whole(1)

    network.reading = join
    assert chosen(routes) == [peer_id(1)]
    assert clock.now == 1000


def test_waiting_ends_when_the_network_is_left() -> None:
    network = ScriptedNetwork()
    routes = routes_of(network)

    async def leave(reading: int) -> None:
        if reading == 3:
            network.is_open = False
            raise asyncio.CancelledError

    network.reading = leave
    with pytest.raises(SwarmUnreachableError, match="has been closed"):
        chosen(routes)
    with pytest.raises(SwarmUnreachableError, match="closed"):
        chosen(routes)


def test_routes_are_open_until_they_or_their_network_are_closed() -> None:
    network = ScriptedNetwork()
    first, second = routes_of(network), routes_of(network)
    assert first.is_open
    first.close()
    assert (first.is_open, second.is_open) == (False, True)
    network.is_open = False
    assert not second.is_open


# ---- pings


def test_pings_are_not_waited_for() -> None:
    network = ScriptedNetwork(whole(0), whole(1))
    released = threading.Event()

    async def round_trip(peer: str) -> float:
        await asyncio.to_thread(released.wait)
        return 0.001 if peer == peer_id(1) else 1.0

    network.round_trip = round_trip  # type: ignore[assignment, method-assign]
    routes = routes_of(network)
    assert chosen(routes) == [peer_id(0)]
    released.set()
    settled(network)
    assert chosen(routes) == [peer_id(1)]


def test_round_trips_are_averaged_and_a_lost_ping_counts_at_once() -> None:
    network = ScriptedNetwork(whole(0))
    routes, known = routes_of(network), []
    for seconds in (1.0, 2.0, math.inf, 3.0):
        network.round_trips[peer_id(0)] = seconds
        routes.refresh(30)
        settled(network)
        known.append(routes._round_trips[peer_id(0)])
    assert known == [1.0, pytest.approx(1.2), math.inf, 3.0]


def test_only_servers_at_the_ends_of_the_model_are_pinged() -> None:
    network = ScriptedNetwork(ScriptedServer(0, 0, 1), ScriptedServer(1, 1, 3), ScriptedServer(2, 2, 4))
    routes_of(network).refresh(30)
    settled(network)
    assert sorted(network.pinged) == [peer_id(0), peer_id(2)]


def test_few_of_many_servers_are_pinged_at_a_time() -> None:
    network = ScriptedNetwork(*map(whole, range(50)))
    routes_of(network).refresh(30)
    settled(network)
    assert len(set(network.pinged)) == len(network.pinged) == 30


@pytest.mark.parametrize(
    ("pings", "latency"),
    [
        ({}, None),
        ({0: math.inf}, None),
        ({0: 0.2, 2: 0.3}, 3 * (0.19 + 0.29) / 2),
        ({2: 0.3}, 3 * 0.29),
        ({0: 0.008, 2: 0.009}, 0.0),
    ],
)
def test_pings_of_the_ends_tell_the_latency_of_the_whole_chain(pings: dict[int, float], latency: float | None) -> None:
    network = ScriptedNetwork(ScriptedServer(0, 0, 1), ScriptedServer(1, 1, 3), ScriptedServer(2, 3, 4))
    network.round_trips = {peer_id(number): seconds for number, seconds in pings.items()}
    routes = routes_of(network)
    assert routes.latency is None
    chosen(routes)
    settled(network)
    assert routes.latency == (None if latency is None else pytest.approx(latency))


def test_least_room_of_the_chain_counts() -> None:
    servers = [
        ScriptedServer(0, 0, 2, cache_tokens_left=4000),
        ScriptedServer(1, 2, 3, cache_tokens_left=1000),
        ScriptedServer(2, 3, 4),
    ]
    routes = routes_of(ScriptedNetwork(*servers))
    assert routes.room == math.inf
    chosen(routes)
    assert routes.room == 500


# ---- avoided servers


def test_a_ban_takes_twice_as_long_each_time_and_a_success_ends_it(clock: Clock) -> None:
    network = ScriptedNetwork(whole(0), whole(1))
    routes = routes_of(network)
    chosen(routes)
    for seconds in (15, 30, 60):
        assert routes.ban(peer_id(0))
        assert not routes.ban(peer_id(0))
        clock.now += seconds - 1
        assert chosen(routes) == [peer_id(1)]
        clock.now += 1
        assert chosen(routes) == [peer_id(0)]
    routes.report_success(peer_id(0))
    assert routes.ban(peer_id(0))
    clock.now += 15
    assert chosen(routes) == [peer_id(0)]
    settled(network)


def test_the_chain_that_was_chosen_last_is_known() -> None:
    routes = routes_of(ScriptedNetwork(whole(0), whole(1)))
    assert not list(routes.latest)
    first, _ = routes.choose(200, 100, 30)
    assert routes.latest == first
    routes.ban(peer_id(0))
    second, _ = routes.choose(200, 100, 30)
    assert routes.latest == second != first


def test_a_banned_server_is_used_if_there_is_no_other() -> None:
    routes = routes_of(ScriptedNetwork(whole(0)))
    routes.ban(peer_id(0))
    assert chosen(routes) == [peer_id(0)]


def test_there_is_no_way_around_over_banned_servers() -> None:
    routes = routes_of(ScriptedNetwork(whole(0), whole(1), whole(2)))
    [span] = routes.choose(200, 100, 30)[0]
    assert span.server.peer_id == peer_id(0)
    assert routes.has_way_around(span)
    routes.ban(peer_id(1))
    assert routes.has_way_around(span)
    routes.ban(peer_id(2))
    assert not routes.has_way_around(span)


def test_a_full_server_is_avoided_until_announcements_are_read_again() -> None:
    routes = routes_of(ScriptedNetwork(whole(0), whole(1)))
    chosen(routes)
    routes.note_full(peer_id(0))
    assert chosen(routes) == [peer_id(1)]
    routes.refresh(30)
    assert chosen(routes) == [peer_id(0)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"blocked": [peer_id(0)]}, 1),
        ({"allowed": [peer_id(2)]}, 2),
        ({"allowed": [peer_id(1), peer_id(2)], "blocked": [peer_id(1)]}, 2),
        ({"adapter": "some/adapter"}, 2),
    ],
)
def test_other_servers_are_not_used(options: dict[str, Any], expected: int) -> None:
    network = ScriptedNetwork(whole(0), whole(1, adapters=["another"]), whole(2, adapters=["some/adapter"]))
    assert chosen(routes_of(network, **options)) == [peer_id(expected)]


# ---- room


def test_less_is_reserved_where_a_server_is_known_to_have_less_room() -> None:
    routes = routes_of(ScriptedNetwork(whole(0)))
    assert routes.choose(200, 100, 30)[1] == 200
    routes.note_limit(peer_id(0), 150)
    assert routes.choose(200, 100, 30)[1] == 150


@pytest.mark.parametrize(
    ("limits", "needed", "expected"),
    [
        ([99, None, None], 100, 1),
        ([99, 99, None], 100, 2),
        ([99, 99, 100], 100, 2),
        ([99, 99, 99], 90, 0),
    ],
)
def test_servers_without_room_are_gone_around(limits: Sequence[int | None], needed: int, expected: int) -> None:
    routes = routes_of(ScriptedNetwork(*map(whole, range(3))))
    for number, limit in enumerate(limits):
        if limit is not None:
            routes.note_limit(peer_id(number), limit)
    assert chosen(routes, needed) == [peer_id(expected)]


def test_a_banned_server_is_preferred_to_one_without_room() -> None:
    routes = routes_of(ScriptedNetwork(whole(0), whole(1)))
    routes.note_limit(peer_id(0), 99)
    routes.ban(peer_id(1))
    assert chosen(routes) == [peer_id(1)]


def test_no_server_shortens_the_context_while_others_have_room() -> None:
    routes = routes_of(ScriptedNetwork(*map(whole, range(3))))
    for number, limit in enumerate((70, 5000, 90)):
        routes.note_limit(peer_id(number), limit)
    assert chosen(routes, 4000) == [peer_id(1)]
    with pytest.raises(CacheLimitError) as caught:
        chosen(routes, 6000)
    assert caught.value.limit == 5000


def test_a_limit_is_believed_for_a_while(clock: Clock) -> None:
    network = ScriptedNetwork(whole(0))
    routes = routes_of(network)
    routes.note_limit(peer_id(0), 70)
    with pytest.raises(CacheLimitError):
        chosen(routes)
    clock.now += 901
    assert chosen(routes) == [peer_id(0)]
    settled(network)


def test_nothing_is_kept_of_servers_that_are_not_announced_any_more(clock: Clock) -> None:
    network = ScriptedNetwork(whole(0), whole(1))
    routes = routes_of(network)
    routes.refresh(30)
    settled(network)
    for number in range(2):
        routes.ban(peer_id(number))
        routes.note_limit(peer_id(number), 70)
    del network.servers[peer_id(1)]
    clock.now += 16
    routes.refresh(30)
    settled(network)
    assert list(routes._banned) == list(routes._limits) == list(routes._round_trips) == [peer_id(0)]


# ---- free cache


def test_a_server_tells_how_much_cache_it_has_free() -> None:
    network = ScriptedNetwork(whole(0))
    network.info = MSGPackSerializer.dumps({"cache_tokens_available": 4096, "version": "2.2.0.post1"})
    assert routes_of(network).free_cache_tokens(peer_id(0), 0) == 4096


@pytest.mark.parametrize(
    "info",
    [
        b"",
        b"\xc1garbage",
        *map(
            MSGPackSerializer.dumps,
            [
                None,
                [4096],
                {},
                *({"cache_tokens_available": value} for value in (None, -1, 1.5, True, "4096", "9" * 10_000, math.nan)),
            ],
        ),
    ],
)
def test_an_invalid_answer_about_free_cache_is_an_error(info: bytes) -> None:
    network = ScriptedNetwork(whole(0))
    network.info = info
    with pytest.raises(SwarmError, match=f"^The server {peer_id(0)} ") as caught:
        routes_of(network).free_cache_tokens(peer_id(0), 0)
    assert len(str(caught.value)) < 500
