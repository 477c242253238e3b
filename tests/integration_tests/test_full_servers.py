"""Servers whose attention cache is full: idle sessions are closed, and other clients' sessions are waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from server_cache import free_caches, tokens_in_use

from langchain_petals import Petals
from langchain_petals.engine.network.routes import Routes
from langchain_petals.swarm import local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_petals.swarm import LocalSwarm

PROMPT = "Human: Who are you?\nAI:"


@pytest.fixture
def hoarder(swarm: LocalSwarm) -> Iterator[Callable[..., Petals]]:
    """Return a function that makes a model with idle sessions as long as the servers allow."""
    made: list[Petals] = []

    def make(**options: Any) -> Petals:
        keeping = {"session_cache": 1000, "session_cache_tokens": 10**9, "max_new_tokens": 3000}
        made.append(Petals(**swarm.connection, temperature=0, **keeping, **options))
        return made[-1]

    yield make
    free_caches(made[0], swarm)


def _fill(llm: Petals, swarm: LocalSwarm) -> None:
    """Keep idle sessions until the servers have no room for one more."""
    free_caches(llm, swarm)
    for index in range(local._FULL_SESSIONS):
        llm.invoke(f"Human: Repeat after me: {index}\nAI:", stop=[" "])
    assert len(llm._get_engine().pool) == local._FULL_SESSIONS
    every_token = [local._FULL_SESSIONS * swarm._longest_session * len(server.blocks) for server in swarm.servers]
    assert tokens_in_use(llm, swarm) == every_token


def test_idle_sessions_are_closed_for_a_session_that_needs_room(
    hoarder: Callable[..., Petals], swarm: LocalSwarm
) -> None:
    llm = hoarder(max_retries=0)
    expected = llm.invoke(PROMPT)
    _fill(llm, swarm)
    assert llm.invoke(PROMPT) == expected
    assert len(llm._get_engine().pool) == 1


def test_session_waits_for_room_that_other_clients_take(
    hoarder: Callable[..., Petals], swarm: LocalSwarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = hoarder(max_retries=0)
    expected = llm.invoke(PROMPT)
    other = hoarder(allowed_servers=[server.peer_id for server in swarm.servers])
    assert other._get_engine() is not llm._get_engine()
    _fill(other, swarm)
    note_full, noted = Routes.note_full, []

    def note_and_let_the_other_go(routes: Routes, peer_id: str) -> None:
        noted.append(peer_id)
        note_full(routes, peer_id)
        other._get_engine().pool.clear()

    monkeypatch.setattr(Routes, "note_full", note_and_let_the_other_go)
    assert llm.invoke(PROMPT) == expected
    assert noted == [swarm.servers[0].peer_id]
