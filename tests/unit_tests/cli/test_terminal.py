"""What all commands share."""

from __future__ import annotations

import io
import os
import re
import signal
import sys

import pytest
from rich.console import Console

from langchain_petals.cli.terminal import (
    SignalledExit,
    keys_unseen,
    make_console,
    running_command,
    show_error,
    step,
)


def test_on_a_terminal_without_progress_a_step_is_named_before_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGCHAIN_PETALS_PROGRESS", "0")
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, highlight=False)
    with step(console, "Installing"):
        assert output.getvalue() == "Installing ... "
    assert re.fullmatch(r"Installing \.\.\. \d+\.\d s\n", output.getvalue())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SignalledExit(143)])
def test_a_step_that_somebody_stops_has_not_failed(error: BaseException) -> None:
    output = io.StringIO()
    with pytest.raises(type(error)), step(Console(file=output), "Installing"):
        raise error
    assert output.getvalue() == "Installing ... stopped\n"


def be_ended(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    pytest.fail("the command went on")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_with_its_own_exit_code(number: signal.Signals, code: int) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended, running_command():
            be_ended(number)
        assert ended.value.code == code
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_command_that_nohup_has_started_does_not_end_with_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with running_command():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_holds_nothing_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("the server said \x1b[2J\x9b")
    assert capsys.readouterr().err == "Error: the server said \u241b[2J\\u009b\n"


def test_what_the_output_cannot_encode_becomes_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", output)
    with running_command():
        make_console().print("caf\u00e9 \u82b1")
    output.flush()
    assert output.buffer.getvalue() == b"caf\xe9 \\u82b1\n"


def test_a_terminal_that_was_closed_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with keys_unseen():
            os.close(ours)
