"""Objects of one connection share an engine; one that cannot be used any more is replaced."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from forks import FORK_WARNING, in_child

from langchain_petals.engine import registry
from langchain_petals.engine.loading import Connection
from langchain_petals.engine.registry import Engines
from langchain_petals.errors import SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Connection("a/model", initial_peers=("/ip4/127.0.0.1/tcp/1",))


class SwarmOfTests:
    """A swarm that clients join, and that may be closed."""

    def __init__(self) -> None:
        self.is_running, self.loaded, self.joined = True, 0, 0
        self.left = threading.Semaphore(0)

    def load(self, *_: object) -> JoinedClient:
        """Load a model."""
        self.loaded += 1
        return JoinedClient(self)


class JoinedClient:
    """A client; nobody asks it for sessions here."""

    tokenizer: Any = None

    def __init__(self, swarm: SwarmOfTests) -> None:
        if not swarm.is_running:
            msg = "closed"
            raise SwarmUnreachableError(msg)
        swarm.joined += 1
        self._swarm, self.is_open = swarm, True

    def rejoined(self) -> JoinedClient:
        return JoinedClient(self._swarm)

    def shut_down(self) -> None:
        self.is_open = False
        self._swarm.left.release()


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> SwarmOfTests:
    swarm = SwarmOfTests()
    monkeypatch.setattr(registry, "load_client", swarm.load)
    monkeypatch.setattr(registry, "client_over", swarm.load)
    return swarm


@pytest.fixture(params=["by connection", "over a model"])
def get(request: pytest.FixtureRequest) -> Callable[[], Any]:
    engines = Engines()
    model, tokenizer = object(), object()
    if request.param == "by connection":
        return functools.partial(engines.connect, HERE)
    return functools.partial(engines.over, model, tokenizer)


def test_an_engine_whose_client_is_not_open_is_replaced_without_loading_again(
    swarm: SwarmOfTests, get: Callable[[], Any]
) -> None:
    first = get()
    assert get() is first
    first.client.is_open = False
    with ThreadPoolExecutor(4) as threads:
        later = set(threads.map(lambda _: get(), range(4)))
    assert len(later) == 1
    assert first not in later
    assert (swarm.loaded, swarm.joined) == (1, 2)


def test_an_engine_that_is_replaced_is_shut_down(swarm: SwarmOfTests, get: Callable[[], Any]) -> None:
    first = get()
    first.client.is_open = False
    second = get()
    assert swarm.left.acquire(blocking=False)
    assert second.is_open


def test_an_engine_of_a_closed_swarm_fails_until_the_swarm_is_back(swarm: SwarmOfTests, get: Callable[[], Any]) -> None:
    first = get()
    first.client.is_open = swarm.is_running = False
    for _ in range(2):
        with pytest.raises(SwarmUnreachableError):
            get()
    swarm.is_running = True
    assert get().is_open
    assert swarm.loaded == 1


@pytest.mark.filterwarnings(FORK_WARNING)
def test_the_child_of_a_fork_gets_an_engine_of_its_own_over_what_was_loaded(
    swarm: SwarmOfTests, get: Callable[[], Any]
) -> None:
    first = get()

    def use() -> None:
        assert not first.is_open
        own = get()
        assert own is not first
        assert own is get()
        assert own.is_open
        assert (swarm.loaded, swarm.joined) == (1, 2)

    in_child(use)
    assert first.is_open
    assert get() is first


class Model:
    """A model that is given; its client does not refer to it."""


def test_a_given_model_lives_as_long_as_its_engine_which_leaves_its_swarm_at_the_end(swarm: SwarmOfTests) -> None:
    engines: Any = Engines()
    model, tokenizer = Model(), Model()
    first, kept = engines.over(model, tokenizer), [weakref.ref(model), weakref.ref(tokenizer)]
    first.client.is_open = False
    second = engines.over(model, tokenizer)
    assert swarm.left.acquire(timeout=30)
    del model, tokenizer, first
    gc.collect()
    assert swarm.left.acquire(timeout=30)  # shut down once more, which does nothing
    assert None not in [each() for each in kept]
    assert second.is_open
    del second
    gc.collect()
    assert swarm.left.acquire(timeout=30)
    assert [each() for each in kept] == [None, None]


def test_a_released_engine_is_forgotten(swarm: SwarmOfTests) -> None:
    engines = Engines()
    first = engines.connect(HERE)
    engines.release(HERE.initial_peers, "another/model")
    assert engines.connect(HERE) is first
    engines.release(HERE.initial_peers, HERE.model)
    assert not first.is_open
    assert engines.connect(HERE) is not first
    assert swarm.loaded == 2
