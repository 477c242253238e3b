"""What all commands share."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

from rich.console import Console

from langchain_petals.cli.terminal import step

if TYPE_CHECKING:
    import pytest


def test_on_a_terminal_without_progress_a_step_is_named_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_PROGRESS", "0")
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, highlight=False)
    with step(console, "Installing"):
        assert output.getvalue() == "Installing ... "
    assert re.fullmatch(r"Installing \.\.\. \d+\.\d s\n", output.getvalue())
