"""Starts the supervisor of a local swarm: `python <this folder>`; see `petals_servers`.

With the argument `check` it imports what servers need, and prints what it has found.
Python looks for modules in this folder first. So it holds nothing but one package and this file.
"""

# ruff: noqa: INP001 - the folder is no package

import importlib
import sys

importlib.import_module("petals_servers.environment").check_environment()
importlib.import_module("petals_servers.check" if sys.argv[1:] == ["check"] else "petals_servers.supervisor").main()
