"""huggingface_hub's bars for downloads, shown where this package shows progress and nowhere else."""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import TYPE_CHECKING

from langchain_petals import progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_GROUP = "huggingface_hub"  # the bars of its own downloads, without those of other libraries that use its class


def _utils() -> ModuleType:
    return importlib.import_module("huggingface_hub.utils")  # heavy, so not imported with this module


class _Silence:
    """Turns huggingface_hub's bars off while somebody asks for it; they are a setting of the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._were_on = False

    def __enter__(self) -> None:
        utils = _utils()
        with self._lock:
            if not self._users:
                self._were_on = not utils.are_progress_bars_disabled(_GROUP)
                if self._were_on:
                    utils.disable_progress_bars(_GROUP)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        utils = _utils()
        with self._lock:
            self._users -= 1
            if not self._users and self._were_on:
                utils.enable_progress_bars(_GROUP)


_silence = _Silence()
"""One for the process, as the setting is."""


@contextlib.contextmanager
def download_bars() -> Iterator[None]:
    """Show a download inside the block by huggingface_hub's bar, if progress is on; else show nothing.

    HF_HUB_DISABLE_PROGRESS_BARS, if it is set, decides alone.
    """
    from huggingface_hub import constants  # noqa: PLC0415 - heavy

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
    elif progress.is_on():
        with progress.stepped_aside():
            yield
    else:
        with _silence:
            yield
