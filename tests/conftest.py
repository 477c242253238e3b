"""What unit and integration tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from langchain_petals.hub import Repository


@pytest.fixture
def find(tmp_path: Path) -> Callable[..., Repository]:
    """Return a function that locates a repository, with an empty cache."""
    from langchain_petals import hub  # noqa: PLC0415 - not every test needs it

    def find(name: str, key: str | None = None, **options: Any) -> Repository:
        repository = hub.Repository(name, cache_dir=str(tmp_path / "cache"), key=key and SecretStr(key), **options)
        return repository.located()

    return find
