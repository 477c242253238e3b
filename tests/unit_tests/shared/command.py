"""Runs `langchain-petals` in this process."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner

from langchain_petals.cli import app


def run(*arguments: str, **options: Any) -> Any:
    """Return how a command ended, and what it wrote; `options` are those of `CliRunner.invoke`."""
    return CliRunner().invoke(app, arguments, **options)
