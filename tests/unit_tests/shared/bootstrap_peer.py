"""A peer that others join a swarm through: a DHT node of hivemind in a process of its own, at a fixed address."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

_PROGRAM = """
import asyncio, sys
from hivemind.dht.node import DHTNode

async def main():
    identity, port = sys.argv[1:]
    node = await DHTNode.create(identity_path=identity, host_maddrs=[f"/ip4/127.0.0.1/tcp/{port}"], idle_timeout=5)
    print(*await node.p2p.get_visible_maddrs(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""


class BootstrapPeer:
    """The peer; `start` it again after `kill`, and it has the same address.

    Args:
        folder: Where its identity is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._identity = folder / "identity.key"
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.address = ""

    def start(self) -> None:
        """Start it, and return when it can be joined."""
        command = [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(self._identity), str(self._port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().split()[0]
        self._port = int(self.address.split("/")[4])

    def kill(self) -> None:
        """End it at once; return when it is gone, and with it its p2pd."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
