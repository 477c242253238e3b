"""Run a command in a terminal of a given width, and write what the terminal shows as an SVG picture; needs tmux.

python scripts/take_picture.py docs/pictures/status.svg --columns 80 -- langchain-petals status MODEL
python scripts/take_picture.py chat.svg --type "Who are you?" --type /stats -- langchain-petals chat --local
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

END = "~ended~"  # shown by the shell after the command


def main(
    picture: Path,
    command: list[str],
    *,
    columns: int = 80,
    rows: Annotated[int, typer.Option(help="Height of the terminal; empty lines at the end are left out.")] = 50,
    typed: Annotated[
        list[str] | None, typer.Option("--type", help="Type this line when the screen has not changed for --quiet.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Take the picture when this text is shown, not at the end.")] = None,
    quiet: Annotated[float, typer.Option(help="Seconds without change before the next line is typed.")] = 3,
    timeout: Annotated[float, typer.Option(help="Seconds after which to give up.")] = 300,
    title: Annotated[str | None, typer.Option(help="Shown above the picture; the command by default.")] = None,
) -> None:
    shown = shlex.join(command)
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal(Path(folder) / "socket")
        try:
            terminal.start(f"{shown}; echo {END}; read line", columns, rows)
            lines, deadline = list(typed or ()), time.monotonic() + timeout
            while not (until in terminal.screen() if until is not None and not lines else END in terminal.screen()):
                if time.monotonic() > deadline:
                    message = f"{shown} did not come to its end:\n{terminal.screen()}"
                    raise SystemExit(message)
                if lines and terminal.is_quiet(quiet):
                    terminal.type(lines.pop(0))
                time.sleep(0.1)
            if until is not None:
                terminal.is_quiet(quiet)
            screen = terminal.screen(colours=True)
        finally:
            terminal.end()
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_text(svg(screen, columns, title or shown), encoding="utf-8")
    print(picture)


class Terminal:
    """A terminal that nobody sees.

    Args:
        socket: A path at which there is nothing yet.
    """

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def start(self, command: str, columns: int, rows: int) -> None:
        """Run a shell command in it."""
        self._run("new-session", "-d", "-x", str(columns), "-y", str(rows), "sh", "-c", command)

    def screen(self, *, colours: bool = False) -> str:
        """Return what it shows now, with ANSI codes for the colours if wanted."""
        return self._run("capture-pane", "-p", *(("-e",) if colours else ()))

    def type(self, line: str) -> None:
        """Type a line and Enter."""
        self._run("send-keys", "-l", line)
        self._run("send-keys", "Enter")

    def is_quiet(self, seconds: float) -> bool:
        """Wait so long; return whether the screen stayed as it was."""
        before = self.screen()
        time.sleep(seconds)
        return before == self.screen()

    def end(self) -> None:
        """End it and what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def _run(self, *arguments: str) -> str:
        return subprocess.run([*self._tmux, *arguments], check=True, capture_output=True, text=True).stdout


def svg(screen: str, columns: int, title: str) -> str:
    """Return a picture of a screen."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    text = Text.from_ansi(screen.split(END, maxsplit=1)[0].rstrip())
    console.print(text, soft_wrap=True)
    console.print()  # else the last line is cut at its lower edge
    # browsers load no fonts into pictures, and pages should fetch nothing from elsewhere
    return re.sub(r"\s*@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)


if __name__ == "__main__":
    typer.run(main)
