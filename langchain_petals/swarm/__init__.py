"""Private swarms on this machine, for tests, examples and development without the internet.

`LocalServer` and `LocalSwarm` are for users. The other names make and find the environment that their servers run in,
for the command `langchain-petals`.
"""

from langchain_petals.swarm.installation import Installation, check, install, installed, uninstall
from langchain_petals.swarm.interpreter import (
    PROGRAM,
    environment_folder,
    environment_for,
    found_python,
    servers_python,
)
from langchain_petals.swarm.local import LocalServer, LocalSwarm

__all__ = [
    "PROGRAM",
    "Installation",
    "LocalServer",
    "LocalSwarm",
    "check",
    "environment_folder",
    "environment_for",
    "found_python",
    "install",
    "installed",
    "servers_python",
    "uninstall",
]
