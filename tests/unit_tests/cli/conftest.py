"""Fixtures of the tests about commands."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from scripted_uv import ScriptedUv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _signals_of_a_terminal() -> Iterator[None]:
    """Let Ctrl-C and a closed terminal reach commands: a job in the background, or under nohup, ignores them."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptedUv:
    """Return a `uv` that installs nothing; no interpreter for servers is there."""
    monkeypatch.delenv("LANGCHAIN_PETALS_SERVER_PYTHON", raising=False)
    monkeypatch.setenv("LANGCHAIN_PETALS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", _no_version)  # petals may be installed beside us
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # a real uv may lie beside the real one
    return ScriptedUv(tmp_path)


def _no_version(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)
