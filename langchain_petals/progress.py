"""Shows on a terminal or in a notebook what a program waits for.

`LANGCHAIN_PETALS_PROGRESS=0` turns it off. It is also off where nobody looks: when the standard error stream is neither
a terminal nor a notebook's.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VARIABLE = "LANGCHAIN_PETALS_PROGRESS"
"""Environment variable; 0 turns progress off."""

_turn = threading.Lock()  # held by what is shown: a second line would garble the first
_shown: list[Any] = []  # the `rich.live.Live` on the terminal, if there is one


def is_on() -> bool:
    """Return whether progress is shown: somebody looks, and has not turned it off."""
    return os.environ.get(VARIABLE, "").strip() != "0" and _is_interactive(_console())


def is_in_notebook() -> bool:
    """Return whether progress is shown in a notebook, whose streams are no terminal."""
    return is_on() and bool(_console().is_jupyter)


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something is being done for as long as the block runs, and then remove it.

    One line is shown at a time: inside another thread's or another call's block, nothing more is shown.

    Args:
        text: What is being done, as in "Joining the swarm".

    Yields:
        A function that replaces the text.

    Example:
        >>> from langchain_petals.progress import progress
        >>> with progress("Counting") as say:
        ...     for number in range(3):
        ...         say(f"Counting: {number + 1} of 3")
    """
    if not is_on() or not _turn.acquire(blocking=False):
        yield _say_nothing
        return
    try:
        console = _console()
        if console.is_jupyter and importlib.util.find_spec("ipywidgets") is None:  # rich would ask to install it
            console.print(f"{text} ...", markup=False, highlight=False)
            yield _say_nothing
        else:
            spinner = _spinner(text)
            with _live(spinner, console) as live:
                _shown.append(live)
                try:
                    yield lambda words: spinner.update(text=_plain(words))
                finally:
                    _shown.remove(live)
    finally:
        _turn.release()


@contextlib.contextmanager
def stepped_aside() -> Iterator[None]:
    """Hide what `progress` shows while others write to the terminal: huggingface_hub shows bars of its own."""
    hidden = _shown[:]
    for live in hidden:
        live.stop()
    try:
        yield
    finally:
        for live in hidden:
            if live in _shown:
                live.start()


def _say_nothing(_: str) -> None:
    pass


def _spinner(text: str) -> Any:
    from rich.spinner import Spinner  # noqa: PLC0415 - shown to few programs

    return Spinner("dots", _plain(text), style="status.spinner")


def _live(spinner: Any, console: Any) -> Any:
    """Return what shows a spinner; unlike `console.status`, it leaves the streams of the program as they are."""
    from rich.live import Live  # noqa: PLC0415 - as above

    return Live(
        spinner,
        console=console,
        refresh_per_second=12.5,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _plain(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(f"{text} ...")  # a str would be read as markup


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415 - as above

    class ConsoleWithCursor(Console):
        """Never hides the cursor: it would stay hidden if the program ended while something is shown."""

        def show_cursor(self, show: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - rich's signature
            return False

    return ConsoleWithCursor(stderr=True)


def _is_interactive(console: Any) -> bool:
    return bool(console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal and _is_tty(console.file)))


def _is_tty(file: Any) -> bool:
    """Return whether a stream is a terminal; rich takes each one for a terminal when FORCE_COLOR is set."""
    try:
        return bool(file.isatty())
    except (AttributeError, ValueError):  # not a whole stream, or a closed one
        return False
