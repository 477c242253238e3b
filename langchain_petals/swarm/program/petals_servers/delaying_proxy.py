"""A TCP proxy that delays all data, so that a swarm on one machine behaves like a swarm on many machines."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

_CHUNK = 2**16


def free_port() -> int:
    """Return a port of the loopback interface that is not in use now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def start_delaying_proxy(target: int, delay: float) -> int:
    """Return a port that forwards connections to `target`, on a thread that ends with the process.

    Data is delayed by `delay` seconds in each direction. Throughput is not limited.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(
        target=lambda: asyncio.run(_serve(listener, target, delay)), name="petals-delaying-proxy", daemon=True
    ).start()
    return int(listener.getsockname()[1])


async def _serve(listener: socket.socket, target: int, delay: float) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, onward[1], delay), _pump(onward[0], writer, delay))

    server = await asyncio.start_server(connect, sock=listener)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Copy one direction; data that is being delayed does not block later data."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)
