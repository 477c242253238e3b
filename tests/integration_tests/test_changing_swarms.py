"""Swarms whose servers come and go: a call waits for those that join, and their end is no failure if it is wanted."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from server_cache import routes_of
from token_loop import before_step, held_before_step, servers_of

from langchain_petals import Petals
from langchain_petals.engine.network import Routes
from langchain_petals.errors import BlocksMissingError, SwarmUnreachableError
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from langchain_petals.engine.sessions.session import SwarmSession

PROMPT = "Human: Count from 1 to 20.\nAI:"
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 20, "session_cache": 0}


def warnings_of(caplog: pytest.LogCaptureFixture) -> Sequence[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_call_waits_for_servers_that_join(
    swarm: LocalSwarm, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llm = Petals(
        model=str(tiny_folder), initial_peers=swarm.initial_peers, dht_prefix="late", connect_timeout=120, **GREEDY
    )
    expected, waits = Petals(**swarm.connection, **GREEDY).invoke(PROMPT), threading.Event()
    read = Routes._read

    async def read_and_tell(routes: Routes) -> None:
        await read(routes)
        if routes.prefix == "late":
            waits.set()

    monkeypatch.setattr(Routes, "_read", read_and_tell)
    answers: list[str] = []
    call = threading.Thread(target=lambda: answers.append(llm.invoke(PROMPT)))
    call.start()
    waits.wait()
    with LocalSwarm(tiny_folder, initial_peers=swarm.initial_peers, dht_prefix="late"):
        call.join()
    assert answers == [expected]
    assert not warnings_of(caplog)


def test_blocks_that_nobody_joins_for_are_an_error_after_connect_timeout(swarm: LocalSwarm, tiny_folder: Path) -> None:
    llm = Petals(model=str(tiny_folder), initial_peers=swarm.initial_peers, dht_prefix="never", connect_timeout=1)
    with pytest.raises(BlocksMissingError, match="No server of the swarm 'never' holds"):
        llm.invoke(PROMPT)


@pytest.mark.parametrize("session_cache", [0, 1])
def test_a_call_works_after_all_servers_were_replaced(session_cache: int) -> None:
    """The DHT lists the dead ones, too: for two minutes."""
    with LocalSwarm() as swarm:
        llm = Petals(**swarm.connection, **(GREEDY | {"session_cache": session_cache}))
        expected = llm.invoke(PROMPT)
        old = list(swarm.servers)
        for server in old:
            server.kill()
        for server in old:
            swarm.add_server(server.blocks)
        assert llm.invoke(PROMPT) == expected
        assert llm.invoke(PROMPT + expected) == Petals(**swarm.connection, **GREEDY).invoke(PROMPT + expected)


def test_a_server_that_dies_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with LocalSwarm(servers=1, replicas=2) as swarm:
        llm = Petals(**swarm.connection, **GREEDY)
        expected, dead = llm.invoke(PROMPT), []

        def kill(session: SwarmSession) -> None:
            dead.extend(servers_of(session, swarm))
            dead[0].kill()

        with before_step({5: kill}):
            assert llm.invoke(PROMPT) == expected
        for _ in range(3):
            llm.invoke(PROMPT)
    [warning] = warnings_of(caplog)
    assert warning.startswith(f"Blocks 0:4 on {dead[0].peer_id} failed, going around it: ")
    assert "\n" not in warning


def test_leaving_a_stream_logs_no_failure(swarm: LocalSwarm, caplog: pytest.LogCaptureFixture) -> None:
    llm = Petals(**swarm.connection, **GREEDY)
    with held_before_step(5) as wait_until_held:
        stream: Any = llm.stream(PROMPT)
        next(stream)
        wait_until_held()
        stream.close()
    llm.invoke(PROMPT)
    assert not warnings_of(caplog)


@pytest.mark.parametrize("joined", [False, True], ids=["its own", "joined"])
def test_closing_a_swarm_in_the_middle_of_a_stream_logs_no_failure(
    swarm: LocalSwarm, caplog: pytest.LogCaptureFixture, *, joined: bool
) -> None:
    options: dict[str, Any] = {"initial_peers": swarm.initial_peers, "dht_prefix": "brief"} if joined else {}
    with LocalSwarm(servers=1, **options) as own:
        llm = Petals(**own.connection, **GREEDY)
        routes = routes_of(llm)
        with held_before_step(5) as wait_until_held:
            stream: Any = llm.stream(PROMPT)
            next(stream)
            wait_until_held()
            own.close()
        with pytest.raises(SwarmUnreachableError, match="has been closed"):
            list(stream)
    assert not routes.is_open
    assert not warnings_of(caplog)
