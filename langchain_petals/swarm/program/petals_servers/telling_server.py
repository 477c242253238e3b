"""Petals' server, which tells what it does; see `foreground` for the events."""

from __future__ import annotations

import importlib
import logging
import threading
from typing import TYPE_CHECKING, Any

import psutil

from .shims import measure_no_network, petals
from .tasks import announce

if TYPE_CHECKING:
    from collections.abc import Callable

    Tell = Callable[..., None]

_STATUS_SECONDS = {"private": 5.0, "public": 60.0}
_LISTED_SECONDS = 30.0
_SHARE_OF_MEMORY = 0.5  # of what is available, for the blocks and the cache of a server without GPU


def telling_server(server_class: Any, token: str | None, tell: Tell) -> Any:
    """Return a subclass of petals' `Server` that tells what it does; `token` is the hub's key."""
    module: Any = importlib.import_module(server_class.__module__)
    if hasattr(module, "load_pretrained_block"):
        load = module.load_pretrained_block

        def load_and_tell(model: str, block: int, *arguments: Any, **options: Any) -> Any:
            loaded = load(model, block, *arguments, **options)
            tell("loaded", block=block)
            return loaded

        module.load_pretrained_block = load_and_tell
    public = getattr(module, "PUBLIC_INITIAL_PEERS", None)
    facts = {"token": token, "tell": staticmethod(tell), "public_initial_peers": public}
    return type("TellingServer", (_TellingServer, server_class), facts)


class _TellingServer:
    """What is put before petals' `Server`.

    Petals sets `dht` when it is a peer of the swarm. `run` sets `module_container` when the server takes requests, and
    again when it has restarted it.
    """

    token: str | None
    tell: Tell
    public_initial_peers: list[str] | None
    _dht: Any = None
    _container: Any = None
    _is_ready = False

    def __init__(self: Any, **options: Any) -> None:
        self.is_public = options["initial_peers"] == self.public_initial_peers
        if type(self).token is not None:
            options["token"] = type(self).token
        if not options["initial_peers"]:
            options["reachable_via_relay"] = False  # there is nobody to ask yet
        if not self.is_public:
            measure_no_network()
        if not _has_gpu(options.get("device")) and options.get("torch_dtype") == "auto":
            options["torch_dtype"] = "float32"  # petals refuses float16 on a CPU, and bfloat16 is slow on many
        super().__init__(**options)

    @property
    def dht(self) -> Any:
        return self._dht

    @dht.setter
    def dht(self: Any, dht: Any) -> None:
        self._dht = dht
        self.tell(
            "joined",
            peer_id=dht.peer_id.to_base58(),
            addresses=[str(address) for address in dht.get_visible_maddrs()],
            dht_prefix=self.dht_prefix,
            total=len(self.module_uids),
        )

    @property
    def module_container(self) -> Any:
        return self._container

    @module_container.setter
    def module_container(self: Any, container: Any) -> None:
        self._container = container
        if container is None:
            return
        announce(self, _LISTED_SECONDS)
        if not self._is_ready:
            self._is_ready = True
            self.tell("ready", **_status(self))
            threading.Thread(target=_tell_status, args=(self,), name="petals-status", daemon=True).start()

    def _choose_num_blocks(self: Any) -> int:
        if self.is_public or self.device.type != "cpu":
            return int(super()._choose_num_blocks())  # type: ignore[misc]
        return _blocks_in_memory(self)

    def _choose_blocks(self: Any) -> Any:
        blocks = super()._choose_blocks()  # type: ignore[misc]
        self.tell(
            "loading",
            blocks=[min(blocks), max(blocks) + 1],
            device=_device_name(self.device),
            torch_dtype=self.server_info.torch_dtype,
            quant_type=self.server_info.quant_type,
            throughput=float(self.server_info.throughput),
            reachable=not getattr(self.server_info, "using_relay", False),
        )
        return blocks


def _has_gpu(device: str | None) -> bool:
    """Return whether petals will use a GPU; `device` is what was asked for."""
    torch = importlib.import_module("torch")
    if device is not None:
        return str(device) != "cpu"
    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())


def _device_name(device: Any) -> str:
    """Return "cpu", or "cuda:0" with the name of the GPU."""
    torch = importlib.import_module("torch")
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def _blocks_in_memory(server: Any) -> int:
    """Return how many blocks a server without GPU should hold: all, or what half of the free memory can hold.

    Petals chooses for GPUs only. In the public swarm it refuses other servers unless they name a number.
    """
    of_block = petals("server.block_utils").get_block_size(
        server.block_config, "memory", dtype=server.torch_dtype, quant_type=server.quant_type
    )
    available = psutil.virtual_memory().available
    fitting = int(available * _SHARE_OF_MEMORY / (of_block + server._cache_bytes_per_block))  # noqa: SLF001
    if not fitting:
        msg = f"a block takes {of_block / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are free"
        raise MemoryError(msg)
    return min(fitting, len(server.module_uids))


def _tell_status(server: Any) -> None:
    """Tell how the server is until it stops."""
    seconds = _STATUS_SECONDS["public" if server.is_public else "private"]
    while not server.stop.wait(seconds):
        try:
            server.tell("status", **_status(server))
        except Exception:
            if not server.stop.is_set():
                logging.getLogger(__name__).warning("Could not read the server's status", exc_info=True)


def _status(server: Any) -> dict[str, Any]:
    directory, container = petals("utils.dht"), server.module_container
    found = directory.get_remote_module_infos(server.dht, server.module_uids, latest=True)
    online = [{peer for peer, each in block.servers.items() if each.state.name == "ONLINE"} for block in found]
    blocks, share = None, None
    if container is not None:
        announcer = container.dht_announcer
        blocks = [announcer.server_info.start_block, announcer.server_info.end_block]
        cache = announcer.memory_cache
        share = cache.bytes_left / cache.max_size_bytes if cache.max_size_bytes else 1.0
    return {
        "blocks": blocks,
        "throughput": float(server.server_info.throughput),
        "cache_free": share,
        "servers": len(set().union(*online)),
        "missing": [block for block, servers in enumerate(online) if not servers],
        "peers": server.dht.run_coroutine(_count_peers),
    }


async def _count_peers(_: Any, node: Any) -> int:
    """Count the peers that a DHT's p2pd is connected with; runs in the process of the DHT."""
    return len(await node.protocol.p2p.list_peers())
