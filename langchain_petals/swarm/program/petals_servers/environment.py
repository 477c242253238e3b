"""What the servers need of their Python environment; `LocalSwarm` raises what is missing as its error."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from typing import NoReturn

EXIT_CODE = 78
"""Exit code that tells `LocalSwarm` to raise the last line of the log as its error (EX_CONFIG of sysexits.h)."""

_LOWEST_PYTHON = (3, 10)
_PACKAGES = ("hivemind", "torch", "psutil")


def check_environment() -> None:
    """End this process if its Python is too old, or lacks a package."""
    if sys.version_info < _LOWEST_PYTHON:
        end_as_unusable(f"it is Python {sys.version.split()[0]}, and 3.10 to 3.12 are needed")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if petals_package() is None:
        missing.insert(0, "petals")
    if missing:
        end_as_unusable(f"its environment lacks {' and '.join(missing)}")


@functools.lru_cache(maxsize=None)  # noqa: UP033 - `cache` is unknown to Pythons that are refused
def petals_package() -> str | None:
    """Return the name of the package that holds petals' modules; None if there is none.

    Forks may have renamed it. A fork is a distribution that needs hivemind and has petals' `server/server.py`.
    """
    if importlib.util.find_spec("petals"):
        return "petals"
    for distribution in importlib.metadata.distributions():
        if any(re.match(r"hivemind\b", each) for each in distribution.requires or ()):
            for name in (distribution.read_text("top_level.txt") or "").split():
                spec = importlib.util.find_spec(name)
                for folder in (spec and spec.submodule_search_locations) or ():
                    if Path(folder, "server", "server.py").is_file():
                        return name
    return None


def end_as_unusable(why: str) -> NoReturn:
    """End this process; `why` is the second half of a sentence."""
    sys.stderr.write(f"{sys.executable} cannot run petals' servers: {' '.join(why.split())}\n")
    sys.stderr.flush()
    sys.exit(EXIT_CODE)
