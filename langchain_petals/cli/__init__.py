"""The command `langchain-petals`: one module for each command, and what they share.

Commands import what they need when they run, so that `--help` does not wait for torch.
"""

try:
    from langchain_petals.cli.root import app
except KeyboardInterrupt:  # Ctrl-C, as soon as the command was sent
    raise SystemExit(130) from None

__all__ = ["app"]
