"""Starts the supervisor of a local swarm: `python <this folder>`; see `petals_servers`.

Python looks for modules in this folder first. So it holds nothing but one package and this file.
"""

import importlib

importlib.import_module("petals_servers.environment").check_environment()
importlib.import_module("petals_servers.supervisor").main()
