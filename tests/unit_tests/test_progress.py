"""Long work is shown where somebody looks, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from langchain_petals.progress import VARIABLE, is_on, progress

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from langchain_petals.progress import is_on, progress, stepped_aside
with progress("Joining") as say:
    with progress("an inner one"):
        say("Joining by [2 of 3] peers")
    with stepped_aside():
        sys.stderr.write("<bar of another>")
print(is_on())
"""


def run(program: str, **environment: str) -> tuple[str, str]:
    """Return what a program writes to its output, and to a terminal as its error stream."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", **environment},
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while data := os.read(ours, 4096):
            shown += data
    os.close(ours)
    return process.communicate()[0], shown.decode()


def test_a_terminal_shows_what_is_done_and_is_left_clean() -> None:
    output, shown = run(PROGRAM)
    assert output == "True\n"
    assert "Joining by [2 of 3] peers ..." in shown  # and not read as markup
    assert "an inner one" not in shown
    before, _, after = shown.partition("<bar of another>")
    assert before.endswith("\x1b[2K")  # the line is erased before others write
    assert after.endswith("\x1b[2K")


def test_a_program_keeps_its_output_and_its_cursor_while_progress_shows() -> None:
    program = """
import os, threading
from langchain_petals.progress import progress
def second():
    print("a line of the program", flush=True)
    os._exit(0)
with progress("Joining"):
    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
"""
    output, shown = run(program)
    assert output == "a line of the program\n"
    assert "Joining ..." in shown
    assert "\x1b[?25" not in shown  # the program has ended, and nothing could show the cursor again


def test_nothing_is_shown_when_it_is_turned_off() -> None:
    assert run(PROGRAM, **{VARIABLE: "0"}) == ("False\n", "<bar of another>")


def test_nothing_is_shown_on_a_terminal_without_abilities() -> None:
    assert run(PROGRAM, TERM="dumb") == ("False\n", "<bar of another>")


@pytest.mark.parametrize("forced", ["", "1"])
def test_nothing_is_written_to_a_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", forced)
    assert not is_on()
    with progress("Joining") as say:
        say("Joining again")
    assert capfd.readouterr() == ("", "")


def test_a_second_thread_shows_nothing_while_the_first_does() -> None:
    program = """
import threading
from langchain_petals.progress import progress
def second():
    with progress("the second") as say:
        say("the second, too")
with progress("the first"):
    thread = threading.Thread(target=second)
    thread.start()
    thread.join()
"""
    _, shown = run(program)
    assert "the first ..." in shown
    assert "the second" not in shown
