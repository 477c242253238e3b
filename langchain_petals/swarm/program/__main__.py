"""Starts the supervisor of a local swarm: `python <this folder>`; see `petals_servers`.

With the argument `check` it imports what servers need, and prints what it has found. With `run` it is one server.
Python looks for modules in this folder first. So it holds nothing but one package and this file.
"""

# ruff: noqa: INP001 - the folder is no package

import importlib
import sys

importlib.import_module("petals_servers.environment").check_environment()
module = {"check": "check", "run": "foreground"}.get("".join(sys.argv[1:]), "supervisor")
importlib.import_module(f"petals_servers.{module}").main()
