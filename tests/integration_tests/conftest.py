"""A real swarm for all integration tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def tiny_folder() -> Path:
    """Return the folder of the bundled model."""
    return Path(__file__).parents[2] / "langchain_petals" / "swarm" / "tiny"


@pytest.fixture(scope="session")
def swarm() -> Iterator[LocalSwarm]:
    """Two servers with the bundled model. Tests must leave it as it is: who kills servers starts a swarm."""
    with LocalSwarm() as swarm:
        yield swarm
