"""huggingface_hub's bars for downloads, shown where this package shows progress and nowhere else."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from typing import TYPE_CHECKING

from langchain_petals import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_ALWAYS = "TQDM_POSITION"  # environment variable by which huggingface_hub is told, with -1, that somebody looks
_GROUP = "huggingface_hub"  # the bars of its own downloads, without those of other libraries that use its class


def _utils() -> ModuleType:
    return importlib.import_module("huggingface_hub.utils")  # heavy, so not imported with this module


class _ChangedWhileUsed:
    """Changes a setting of the whole process for as long as somebody asks for that.

    Args:
        change: Makes the change, and returns a function that undoes it.
    """

    def __init__(self, change: Callable[[], Callable[[], None]]) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._change = change
        self._undo: Callable[[], object] = change

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._undo = self._change()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._undo()


def _turn_off() -> Callable[[], None]:
    utils = _utils()
    if utils.are_progress_bars_disabled(_GROUP):
        return lambda: None
    utils.disable_progress_bars(_GROUP)
    return lambda: utils.enable_progress_bars(_GROUP)


def _turn_on_without_terminal() -> Callable[[], None]:
    """Let huggingface_hub show bars in a notebook; by itself it shows them on terminals only."""
    _utils()  # imports tqdm, which would take the variable for its own
    before = os.environ.get(_ALWAYS)
    os.environ[_ALWAYS] = "-1"
    return lambda: _restore(before)


def _restore(value: str | None) -> None:
    if value is None:
        os.environ.pop(_ALWAYS, None)
    else:
        os.environ[_ALWAYS] = value


_silence = _ChangedWhileUsed(_turn_off)
_bars_in_notebook = _ChangedWhileUsed(_turn_on_without_terminal)


@contextlib.contextmanager
def download_bars() -> Iterator[None]:
    """Show a download inside the block by huggingface_hub's bar, if progress is on; else show nothing.

    HF_HUB_DISABLE_PROGRESS_BARS, if it is set, decides alone.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
    elif progress.is_in_notebook():
        with _bars_in_notebook:
            yield
    elif progress.is_on():
        with progress.stepped_aside():
            yield
    else:
        with _silence:
            yield
