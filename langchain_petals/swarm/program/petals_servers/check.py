"""Tells whether servers could run in this environment, without running one."""

from __future__ import annotations

import importlib
import json
import platform
import sys
import tempfile

from .environment import petals_package
from .tasks import prepare


def main() -> None:
    """Import and change all that servers need; print the versions as the last line."""
    with tempfile.TemporaryDirectory() as work_dir:
        prepare(work_dir)
    names = (str(petals_package()), "hivemind", "torch", "transformers")
    versions = {name: str(getattr(importlib.import_module(name), "__version__", "unknown")) for name in names}
    sys.stdout.write(json.dumps({"python": platform.python_version(), "petals": versions.pop(names[0]), **versions}))
    sys.stdout.write("\n")
