"""A real swarm for all integration tests."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub.utils import _http as requests_to_the_hub
from langchain_tests.conftest import base_vcr_config
from local_hub import LocalHub, point_at
from random_weights import write_random_model

from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that a class says its model cannot pass, since it understands nothing."""

    def is_for_others(item: pytest.Item) -> bool:
        test_class = getattr(item, "cls", None)
        return getattr(item, "originalname", None) in getattr(test_class, "needs_understanding", ())

    left_out = [item for item in items if is_for_others(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not is_for_others(item)]


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """Return the folder of the bundled model."""
    return Path(__file__).parents[2] / "langchain_petals" / "swarm" / "tiny"


@pytest.fixture(scope="session")
def swarm() -> Iterator[LocalSwarm]:
    """Two servers with the bundled model. Tests must leave it as it is: who kills servers starts a swarm."""
    with LocalSwarm() as swarm:
        yield swarm


@pytest.fixture(scope="session")
def second_swarm(
    swarm: LocalSwarm, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSwarm]:
    """Return a server on the same swarm with a second model: the bundled one's weights, under another name."""
    folder = tmp_path_factory.mktemp("models") / "another-tiny"
    shutil.copytree(tiny_folder, folder)
    with LocalSwarm(folder, servers=1, initial_peers=swarm.initial_peers) as second:
        yield second


@pytest.fixture(scope="session")
def swarm_of_random_weights(
    swarm: LocalSwarm, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalSwarm]:
    """Return two servers on the same swarm with a model that understands nothing."""
    folder = tmp_path_factory.mktemp("models") / "random-weights"
    write_random_model(tiny_folder, folder)
    with LocalSwarm(folder, initial_peers=swarm.initial_peers) as random_weights:
        yield random_weights


@pytest.fixture(scope="session")
def vcr_config() -> dict[str, Any]:
    """Return how traffic would be recorded; a swarm's is no HTTP, so there is none."""
    return base_vcr_config()


class Hasty:
    """Python's `time`, but for its pauses; huggingface_hub makes 23 s of them before it says that a hub is down."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Do not pause."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """Return an empty model hub on loopback; this process and its children ask it, and keep its files apart."""
    monkeypatch.setattr(requests_to_the_hub, "time", Hasty())
    with LocalHub() as hub:
        point_at(monkeypatch, hub.url, tmp_path / "home")
        yield hub
