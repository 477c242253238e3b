"""Fixtures of the tests about commands."""

from __future__ import annotations

import importlib.metadata
import sys
from typing import TYPE_CHECKING

import pytest
from scripted_uv import ScriptedUv

if TYPE_CHECKING:
    from pathlib import Path


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
