"""Private swarms on this machine, for tests, examples and development without the internet.

`LocalServer`, `LocalSwarm` and `BUNDLED_MODEL` are for users. The other names are for the command `langchain-petals`:
they make and find the environment that servers run in, and run a server in the foreground.
"""

from langchain_petals.swarm.foreground import ForegroundServer
from langchain_petals.swarm.installation import Installation, check, install, installed, uninstall
from langchain_petals.swarm.interpreter import (
    PROGRAM,
    environment_folder,
    environment_for,
    found_python,
    servers_python,
)
from langchain_petals.swarm.local import LocalServer, LocalSwarm
from langchain_petals.swarm.served_model import (
    BUNDLED_MODEL,
    blocks_and_context,
    parse_span,
    resolve_model,
    span_text,
)

__all__ = [
    "BUNDLED_MODEL",
    "PROGRAM",
    "ForegroundServer",
    "Installation",
    "LocalServer",
    "LocalSwarm",
    "blocks_and_context",
    "check",
    "environment_folder",
    "environment_for",
    "found_python",
    "install",
    "installed",
    "parse_span",
    "resolve_model",
    "servers_python",
    "span_text",
    "uninstall",
]
