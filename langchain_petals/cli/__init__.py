"""The command `langchain-petals`: one module for each command, and what they share.

Commands import what they need when they run, so that `--help` does not wait for torch.
"""

from langchain_petals.cli.root import app

__all__ = ["app"]
