"""Fixtures of the tests about servers: their interpreter, an empty data folder, and a `uv` that installs nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from scripted_uv import ScriptedUv

from langchain_petals.swarm.interpreter import found_python

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def servers_python() -> Path:
    """Return the interpreter of the servers' environment, which the tests about petals need."""
    found = found_python()
    return found if found is not None else pytest.fail("make the servers' environment with `make`")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for the servers' environment, empty; nothing else names an interpreter."""
    monkeypatch.delenv("LANGCHAIN_PETALS_SERVER_PYTHON", raising=False)
    monkeypatch.setenv("LANGCHAIN_PETALS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedUv:
    """Return a `uv` that installs nothing, the only one that is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sys, "executable", str(folder / "python"))  # a real uv may lie beside the real one
    return ScriptedUv(folder)
