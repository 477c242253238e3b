"""A program on a terminal of its own, and what somebody types there."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

_CODES = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|[=>]|\][^\x07]*\x07)|[\r\x03]")

CTRL_C, CTRL_D, ENTER, UP, ALT_ENTER = "\x03", "\x04", "\r", "\x1b[A", "\x1b\r"


class PtyProgram:
    """Runs a program on a terminal.

    Args:
        command: The program and its arguments.
        env: Its whole environment.
        columns: Width of the terminal.

    Attributes:
        raw: What was shown so far, with all escape codes.
        process: The program.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str], columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - makes a few system calls, and needs no lock
        )
        os.close(theirs)
        self.raw = ""
        self._changed, self._over, self._looked = threading.Condition(), False, 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        decoder, answered = codecs.getincrementaldecoder("utf-8")("replace"), 0  # a piece may end within a character
        with contextlib.suppress(OSError):  # the program has ended
            while data := os.read(self._ours, 4096):
                with self._changed:
                    self.raw += decoder.decode(data)
                    self._changed.notify_all()
                while self.raw.count("\x1b[6n") > answered:  # where the cursor is, asks prompt_toolkit
                    os.write(self._ours, b"\x1b[1;1R")
                    answered += 1
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def is_cooked(self) -> bool:
        """Whether the terminal shows what is typed, and passes it on line by line."""
        flags = termios.tcgetattr(self._ours)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    @property
    def shown(self) -> str:
        """What was shown so far, without escape codes."""
        return _CODES.sub("", self.raw)

    def wait_for(self, text: str) -> str:
        """Wait until a text is shown after the last one that was waited for; return what came before it."""
        with self._changed:
            while text not in self.shown[self._looked :]:
                assert not self._over, f"{text!r} was not shown:\n{self.shown}"
                self._changed.wait()
            before, _, _ = self.shown[self._looked :].partition(text)
            self._looked += len(before) + len(text)
            return before

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode(errors="surrogateescape"))

    def end(self) -> int:
        """Wait for the end of the program; return its exit code."""
        code = self.process.wait()
        self._reader.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.end()
        os.close(self._ours)


def _take_terminal() -> None:
    """Make the terminal the one whose Ctrl-C reaches this process, and only this process's group."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):  # shells let background jobs ignore them, and nohup
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
