"""A TCP proxy that delays all data, so that a swarm on one machine behaves like one on many."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading

_CHUNK = 2**16


def free_port() -> int:
    """Return a port of the loopback interface that is not in use now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_delaying_proxy(target: int, delay: float) -> int:
    """Return a port that forwards connections to `target`, on a thread that ends with the process.

    Data is delayed by `delay` seconds in each direction. Throughput is not limited.
    """
    port: concurrent.futures.Future[int] = concurrent.futures.Future()
    threading.Thread(
        target=lambda: asyncio.run(_serve(target, delay, port)), name="petals-delaying-proxy", daemon=True
    ).start()
    return port.result()


async def _serve(target: int, delay: float, port: concurrent.futures.Future[int]) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, onward[1], delay), _pump(onward[0], writer, delay))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    port.set_result(server.sockets[0].getsockname()[1])
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Copy one direction; data on the way does not hold up later data."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)
