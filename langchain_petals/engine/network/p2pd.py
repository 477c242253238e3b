"""p2pd, the process that speaks libp2p on behalf of this one: its start, its socket and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals.engine.network.hivemind_parts import P2PD, P2PDaemonError

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

_LONGEST_FOLDER = 74  # bytes, and 29 for the socket's name; a socket's whole path may have 103 on macOS, 107 on Linux
_LONGEST_LINE = 65_536  # bytes
_READY = "Peer ID:"
_ADDRESS_AND_REASON = re.compile(r"\* \[([^\]]+)\] (.+)")
_OTHER_PEER = re.compile(r".*peer id mismatch: expected \w+, but remote key matches (\w+).*")
_WHO = r"the peer there is \1, not the one that the address names"


class P2PDaemon:
    """A p2pd process.

    hivemind would start one, too. This one is out of reach of the signals that a terminal sends (Ctrl-C ends calls, not
    the connection), needs nothing of the program's event loop policy, and leaves nothing behind if it cannot join. When
    this process ends, in whatever way, p2pd sees its connection close, removes its socket and ends.

    Args:
        initial_peers: Multiaddresses of peers to connect to.
        timeout: Seconds after which p2pd ends if nobody has spoken to it.

    Attributes:
        address: Multiaddress of its socket.

    Raises:
        OSError: It could not be started.
    """

    def __init__(self, initial_peers: Sequence[str], timeout: float) -> None:
        self._socket = _socket_folder() / f"petals-{secrets.token_hex(8)}.sock"
        self.address = f"/unix{self._socket}"
        self._reading: asyncio.ReadTransport | None = None
        self._failures: deque[str] = deque(maxlen=len(initial_peers) + 1)
        output, printed = os.pipe()
        self._output = open(output, "rb")  # noqa: SIM115, PTH123 - a pipe, and asyncio closes it
        try:
            self._process = subprocess.Popen(  # noqa: S603 - hivemind's own program
                [
                    P2PD,
                    f"-listen={self.address}",
                    f"-bootstrapPeers={','.join(initial_peers)}",
                    "-b",
                    "-dhtClient=1",
                    "-hostAddrs=/ip4/127.0.0.1/tcp/0",
                    "-relayHopLimit=0",
                    *(f"-{name}=1" for name in ("autonat", "connManager", "natPortMap", "relay", "tls")),
                    f"-idleTimeout={timeout:g}s",
                ],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={"GOLOG_LOG_LEVEL": "error,p2pd=debug", **os.environ, "GOLOG_LOG_FMT": "json"},
                # if this process is killed, p2pd must be able to print before it removes its socket: it reads, too
                pass_fds=(output,),
                start_new_session=True,
                umask=0o077,  # nobody else may use the socket
            )
        finally:
            os.close(printed)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    async def ready(self) -> None:
        """Wait until it is connected to an initial peer, and go on reading what it prints.

        Raises:
            P2PDaemonError: It could not connect; the error tells why.
        """
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._reading, _ = await loop.connect_read_pipe(lambda: _Output(ready, self._failures), self._output)
        await ready

    def stop_reading(self) -> None:
        """Stop reading what it prints; on the event loop."""
        if self._reading is not None:
            self._reading.close()

    def end(self) -> None:
        """End it, and remove its socket. May be called twice."""
        self._process.kill()
        self._process.wait()
        self._output.close()
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()

    def disown(self) -> None:
        """Forget it, in the child of a fork: it is the parent's."""
        self._process.returncode = 0


class _Output(asyncio.Protocol):
    """Reads the lines that p2pd prints; they are logged for debugging only.

    Args:
        ready: Gets its result when p2pd is connected, or an error when p2pd has ended before.
        failures: Gets p2pd's reasons for not being connected.
    """

    def __init__(self, ready: asyncio.Future[None], failures: deque[str]) -> None:
        self._ready, self._failures = ready, failures
        self._rest, self._last = b"", "it ended"

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[-_LONGEST_LINE:]
        for line in lines:
            self._read(line.decode(errors="replace"))

    def connection_lost(self, _: Exception | None) -> None:
        if not self._ready.done():
            self._ready.set_exception(P2PDaemonError("; ".join(self._failures) or self._last))

    def _read(self, line: str) -> None:
        logger.debug("p2pd: %s", line)
        if line.startswith(_READY):
            if not self._ready.done():
                self._ready.set_result(None)
        elif not self._ready.done():
            self._last = line.strip() or self._last
            self._failures.extend(_reasons(line))


def _reasons(line: str) -> list[str]:
    """Return why p2pd could not connect, by a line that it prints."""
    try:
        error = str(json.loads(line).get("error", ""))
    except (ValueError, AttributeError):
        return []
    found = _ADDRESS_AND_REASON.findall(error)
    if not found:
        return [error.rpartition(": ")[2]] if error else []
    return [f"{address}: {_OTHER_PEER.sub(_WHO, why)}" for address, why in found]


def _socket_folder() -> Path:
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= _LONGEST_FOLDER else Path("/tmp")  # noqa: S108 - the socket's name is secret
