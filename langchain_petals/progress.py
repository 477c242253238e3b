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
_shown: list[Any] = []  # the `rich.status.Status` on the terminal, if there is one


def is_on() -> bool:
    """Return whether progress is shown: somebody looks, and has not turned it off."""
    return os.environ.get(VARIABLE, "").strip() != "0" and _is_interactive(_console())


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
            with console.status(_plain(text)) as status:
                _shown.append(status)
                try:
                    yield lambda words: status.update(_plain(words))
                finally:
                    _shown.remove(status)
    finally:
        _turn.release()


@contextlib.contextmanager
def stepped_aside() -> Iterator[None]:
    """Hide what `progress` shows while others write to the terminal: huggingface_hub shows bars of its own."""
    hidden = _shown[:]
    for status in hidden:
        status.stop()
    try:
        yield
    finally:
        for status in hidden:
            if status in _shown:
                status.start()


def _say_nothing(_: str) -> None:
    pass


def _plain(text: str) -> Any:
    from rich.text import Text  # noqa: PLC0415 - shown to few programs

    return Text(f"{text} ...")  # a str would be read as markup


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415 - as above

    return Console(stderr=True)


def _is_interactive(console: Any) -> bool:
    return bool(console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal))
