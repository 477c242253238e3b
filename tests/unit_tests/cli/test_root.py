"""All commands together: their help, the version, completion, and how they end."""

from __future__ import annotations

from command import run


def test_help_lists_the_commands() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        assert {"demo", "server"} <= set(run(*arguments).output.split())
    for arguments in (["server"], ["server", "-h"]):
        assert {"install", "uninstall", "info"} <= set(run(*arguments).output.split())
