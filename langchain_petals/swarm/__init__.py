"""Private swarms on this machine, for tests, examples and development without the internet."""

from langchain_petals.swarm.local import LocalServer, LocalSwarm

__all__ = ["LocalServer", "LocalSwarm"]
