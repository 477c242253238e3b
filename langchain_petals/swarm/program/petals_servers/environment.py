"""What the servers need of their Python environment; `LocalSwarm` raises what is missing as its error."""

from __future__ import annotations

import importlib.util
import sys
from typing import NoReturn

EXIT_CODE = 78
"""Exit code that tells `LocalSwarm` to raise the last line of the log as its error (EX_CONFIG of sysexits.h)."""

_LOWEST_PYTHON = (3, 10)
_PACKAGES = ("petals", "hivemind", "torch", "psutil")


def check_environment() -> None:
    """End this process if its Python is too old, or lacks a package."""
    if sys.version_info < _LOWEST_PYTHON:
        end_as_unusable(f"it is Python {sys.version.split()[0]}, and 3.10 to 3.12 are needed")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        end_as_unusable(f"its environment lacks {' and '.join(missing)}")


def end_as_unusable(why: str) -> NoReturn:
    """End this process; `why` is the second half of a sentence."""
    sys.stderr.write(f"{sys.executable} cannot run petals' servers: {' '.join(why.split())}\n")
    sys.stderr.flush()
    sys.exit(EXIT_CODE)
