"""The child processes of the supervisor: petals' own servers, and the bootstrap peer that connects them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import math
import time
from typing import TYPE_CHECKING, Any

from .delaying_proxy import free_port, start_delaying_proxy
from .shims import apply_shims, ask_nobody_whether_reachable, import_petals, petals

if TYPE_CHECKING:
    from collections.abc import Callable

# Nothing here leaves the machine: no relays, no NAT traversal, no port forwarding.
_P2P_OPTIONS: dict[str, Any] = {
    "host_maddrs": ["/ip4/127.0.0.1/tcp/0"],
    "use_relay": False,
    "use_auto_relay": False,
    "nat_port_map": False,
    "auto_nat": False,
}
_SERVER_OPTIONS: dict[str, Any] = {  # forks may lack some
    "throughput": 1.0,  # a number instead of "auto" skips the speed test, which needs the internet
    "device": "cpu",
    "torch_dtype": "float32",
    "num_handlers": 1,
    "skip_reachability_check": True,
    "reachable_via_relay": False,
}


def prepare(work_dir: str) -> None:
    """Import all modules that the children need, with all shims."""
    import_petals()
    apply_shims(work_dir)
    ask_nobody_whether_reachable()
    # petals would import it, and bitsandbytes, for the first block
    with contextlib.suppress(ModuleNotFoundError):  # not every fork has it
        petals("utils.peft")
    importlib.import_module("torch").set_num_threads(1)  # several servers share this machine's cores
    gc.freeze()  # the children's garbage collectors then leave the shared memory uncopied


def run_bootstrap_peer(report: Callable[[dict[str, Any]], None]) -> None:
    """Run a DHT peer without blocks until the process ends; `report` gets its `peer_id` and `initial_peers`."""

    async def run() -> None:
        node = await importlib.import_module("hivemind.dht.node").DHTNode.create(**_P2P_OPTIONS)
        addresses = await node.get_visible_maddrs()
        report({"peer_id": node.peer_id.to_base58(), "initial_peers": [str(address) for address in addresses]})
        await asyncio.Event().wait()

    asyncio.run(run())


def run_server(report: Callable[[dict[str, Any]], None], hop_delay: float, **options: Any) -> None:
    """Run petals' `Server` until the process ends; `report` gets its `peer_id` once its blocks can be used."""
    server_class = petals("server.server").Server
    known = inspect.signature(server_class).parameters  # petals hands others to hivemind, which refuses them
    for_petals = {name: value for name, value in _SERVER_OPTIONS.items() if name in known}
    options = for_petals | _P2P_OPTIONS | options
    if hop_delay:
        port = free_port()
        options["host_maddrs"] = [f"/ip4/127.0.0.1/tcp/{port}"]
        options["announce_maddrs"] = [f"/ip4/127.0.0.1/tcp/{start_delaying_proxy(port, hop_delay)}"]

    class ReportingServer(server_class):  # type: ignore[misc, valid-type]
        """Reports when its blocks can be found and used."""

        reported = False
        container: Any = None

        @property
        def module_container(self) -> Any:
            return self.container

        @module_container.setter
        def module_container(self, container: Any) -> None:
            # `Server.run` sets this when the server takes requests, and again after it restarts the container.
            self.container = container
            if container is not None and not self.reported:
                announce(self)
                report({"peer_id": self.dht.peer_id.to_base58()})
                self.reported = True

    ReportingServer(**options).run()


def announce(server: Any, patience: float = math.inf) -> None:
    """Announce the server's blocks now, earlier than petals would; return when the DHT lists them as online.

    `patience` is in seconds; after that, petals' own announcements must do.
    """
    directory = petals("utils.dht")
    now = importlib.import_module("hivemind.utils.timed_storage").get_dht_time
    uids, peer_id = server.module_container.dht_announcer.module_uids, server.dht.peer_id
    online, deadline = False, time.monotonic() + patience
    while not online and time.monotonic() < deadline:
        directory.declare_active_modules(
            server.dht, uids, server.server_info, expiration_time=now() + server.expiration
        )
        found = [
            block.servers.get(peer_id) for block in directory.get_remote_module_infos(server.dht, uids, latest=True)
        ]
        online = all(info is not None and info.state == server.server_info.state for info in found)
