"""The processes of a local swarm: `python -m langchain_petals.swarm.supervisor`, started by `LocalSwarm`.

Importing torch and petals takes seconds and some 300 MB. One process, the supervisor, does it once and forks the
others:

    the program with the LocalSwarm
    `- supervisor                  imports petals; forks, reaps, and ends the others when the program is gone
       |- bootstrap            a DHT peer without blocks, so that the swarm needs no server in particular
       |  `- p2pd
       |- server-0             petals' own Server; with all below it one process group
       |  |- connection handler
       |  `- DHT node
       |     `- p2pd
       `- server-1 ...

The program and the supervisor exchange dictionaries over a socket, the supervisor's standard input; the command line
holds nothing but the module's name.

    to the supervisor, first   {"program": its pid, "work_dir": folder for sockets and temporary files}
                   then    {"order": "start", "name": ..., "log_path": ..., "task": "bootstrap" or "server",
                            ...petals' options}
                           {"order": "end", "name": ...}
    from the supervisor        {"event": "started", "name": ..., "pid": ...}
                           {"event": "ready", "name": ..., "peer_id": ..., "initial_peers": [...]}
                           {"event": "ended", "name": ..., "code": ...}
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import importlib
import logging
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil

from langchain_petals.petals_compat import end_with_parent, load_petals, watch_parent
from langchain_petals.swarm.delaying_proxy import free_port, start_delaying_proxy

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
_SERVER_OPTIONS: dict[str, Any] = {
    "throughput": 1.0,  # a number instead of "auto" skips the speed test, which needs the internet
    "device": "cpu",
    "torch_dtype": "float32",
    "num_handlers": 1,
    "skip_reachability_check": True,
    "reachable_via_relay": False,
}
_PROGRAM_CHECK_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    """Run the supervisor until the program closes the socket, sends SIGTERM, or is gone."""
    connection = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    settings = connection.recv()
    _prepare_petals(settings["work_dir"])
    Supervisor(connection, settings["program"], Path(settings["work_dir"])).run()
    os._exit(0)  # taking torch and petals apart in order takes longer than all of the above, and `close` waits


def _prepare_petals(work_dir: str) -> None:
    """Import all that the children need, and change what petals and hivemind do not offer as an option."""
    api = load_petals()
    server = importlib.import_module("petals.server.server")
    importlib.import_module("petals.utils.peft")  # petals imports it, and bitsandbytes, with the first block
    importlib.import_module("torch").set_num_threads(1)  # several servers share this machine's cores

    # hivemind's sockets would stay behind in /tmp when a process is killed
    p2p = importlib.import_module("hivemind.p2p.p2p_daemon").P2P
    p2p._UNIX_SOCKET_PREFIX = f"/unix{work_dir}/"  # noqa: SLF001

    # A second p2pd per server, with which servers check for one another whether the internet can reach them
    server.ReachabilityProtocol.attach_to_dht = _ignore

    end_with_parent(api.handler)

    # petals takes a file that it cannot read for a damaged download, and asks the hub for it, for ever. A
    # folder is not on the hub: fail instead.
    weights: Any = importlib.import_module("petals.server.from_pretrained")
    load_from_hub = weights._load_state_dict_from_repo_file  # noqa: SLF001

    @functools.wraps(load_from_hub)
    def load(model: str, filename: str, *, block_prefix: str | None = None, **options: Any) -> Any:
        path = os.path.join(model, filename)  # noqa: PTH118 - a hub name is no path
        if os.path.isdir(model):  # noqa: PTH112
            return weights._load_state_dict_from_local_file(path, block_prefix=block_prefix)  # noqa: SLF001
        return load_from_hub(model, filename, block_prefix=block_prefix, **options)

    weights._load_state_dict_from_repo_file = load  # noqa: SLF001
    gc.freeze()  # so that the children's collectors do not copy the memory that they share


@dataclass(frozen=True)
class _Child:
    name: str
    reports: Connection


class Supervisor:
    """Starts the swarm's processes on order and ends them, at the latest when the program is gone.

    Args:
        connection: Orders come in and events go out here.
        program: Process id of the program; the supervisor is its child.
        work_dir: Folder for sockets and temporary files; removed in the end, the program may be gone.
    """

    def __init__(self, connection: Connection, program: int, work_dir: Path) -> None:
        self._connection, self._program, self._work_dir = connection, program, work_dir
        self._children: dict[int, _Child] = {}  # by process id, which is also the process group's
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    def run(self) -> None:
        """Serve orders until there is no one left to give them; then end all children."""
        _adopt_orphans()
        caught, wakeup = socket.socketpair()
        for end in (caught, wakeup):
            end.settimeout(0)
        # Signals only wake the loop up: nothing is interrupted half-way.
        signal.set_wakeup_fd(wakeup.fileno())
        signal.signal(signal.SIGTERM, _ignore)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(caught, selectors.EVENT_READ, functools.partial(self._on_signal, caught))
        self._selector.register(self._connection, selectors.EVENT_READ, self._on_order)
        try:
            # With a time-out: children of a program that is gone may still hold its end of the socket.
            while not self._stopping and os.getppid() == self._program:
                for key, _ in self._selector.select(_PROGRAM_CHECK_SECONDS):
                    key.data()
        finally:
            for pid in list(self._children):
                self._end(pid)
            shutil.rmtree(self._work_dir, ignore_errors=True)

    def _on_signal(self, caught: socket.socket) -> None:
        if signal.SIGTERM in caught.recv(4096):
            self._stopping = True
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._children:  # and not one of its children, adopted
                self._end(pid, os.waitstatus_to_exitcode(status))

    def _on_order(self) -> None:
        try:
            order = self._connection.recv()
        except (EOFError, OSError):
            self._stopping = True
            return
        if order.pop("order") == "start":
            self._start(**order)
            return
        for pid in [pid for pid, child in self._children.items() if child.name == order["name"]]:
            self._end(pid)

    def _on_report(self, child: _Child) -> None:
        if child.reports.closed:  # by an event that the loop handled just before
            return
        try:
            report = child.reports.recv()
        except EOFError:
            self._selector.unregister(child.reports)
            return
        self._tell("ready", child.name, **report)

    def _start(self, name: str, log_path: str, task: str, **options: Any) -> None:
        receiver, sender = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            self._become(task, log_path, sender, options)
        with suppress(PermissionError):  # the child has done it, or is dead
            os.setpgid(pid, pid)
        sender.close()
        child = self._children[pid] = _Child(name, receiver)
        self._selector.register(receiver, selectors.EVENT_READ, functools.partial(self._on_report, child))
        self._tell("started", name, pid=pid)

    def _become(self, task: str, log_path: str, reports: Connection, options: dict[str, Any]) -> NoReturn:
        """Turn this fork of the supervisor into one of its children."""
        code = 1
        try:
            os.setpgid(0, 0)
            supervisor = os.getppid()
            signal.set_wakeup_fd(-1)
            for each in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT):
                signal.signal(each, signal.SIG_DFL)
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            logging.basicConfig(
                level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
            )
            watch_parent(supervisor)
            _part_from_siblings()
            _TASKS[task](reports.send, **options)
            code = 0
        except BaseException:  # noqa: BLE001 - this fork must end here, not in the supervisor's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end(self, pid: int, code: int = -signal.SIGKILL) -> None:
        """End a child and all below it; return when they are gone."""
        child = self._children.pop(pid)
        family = _family(pid)
        with suppress(ProcessLookupError, PermissionError):  # nobody, or on macOS only zombies, left
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:  # the child, then its children as they are adopted
                os.waitpid(-pid, 0)
        _remove_shared_memory(pid, family)
        if child.reports in self._selector.get_map():
            self._selector.unregister(child.reports)
        child.reports.close()
        self._tell("ended", child.name, code=code)

    def _tell(self, event: str, name: str, **more: Any) -> None:
        with suppress(OSError):  # nobody listens any more: the loop is about to notice
            self._connection.send({"event": event, "name": name, **more})


def _part_from_siblings() -> None:
    """Give this fork locks of its own for what hivemind does in all processes.

    hivemind makes them when it is imported, for a process and its children: here, for all servers of the swarm. One
    that is killed while it holds such a lock would take all others with it.
    """
    importlib.import_module("hivemind.utils.mpfuture").MPFuture.reset_backend()


def _ignore(*_: object) -> None:
    """Do nothing; unlike SIG_IGN, this lets the signal reach the wake-up socket."""


def _family(pid: int) -> dict[int, int]:
    """Return the process and all below it, each with its process group."""
    with suppress(psutil.NoSuchProcess):
        members = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        groups = {}
        for member in members:
            with suppress(ProcessLookupError):
                groups[member] = os.getpgid(member)
        return groups
    return {}


def _remove_shared_memory(group: int, family: dict[int, int]) -> None:
    """Do at once what torch's shared-memory manager does 2 s after the last of its clients died.

    The manager has a process group of its own, and its clients' files are named after their processes. Of a
    child that died by itself there is no family left to know: its manager does the work.
    """
    for pid in (pid for pid in family if family[pid] != group):
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    for file in Path("/dev/shm").glob("torch_*"):  # noqa: S108 - torch chooses the place
        if int(file.name.split("_")[1]) in family:
            file.unlink(missing_ok=True)


def _adopt_orphans() -> None:
    """Become the parent of all descendants that lose theirs, so as to wait for them; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _run_bootstrap_peer(report: Callable[[dict[str, Any]], None]) -> None:
    async def run() -> None:
        node = await importlib.import_module("hivemind.dht.node").DHTNode.create(**_P2P_OPTIONS)
        addresses = await node.get_visible_maddrs()
        report({"peer_id": node.peer_id.to_base58(), "initial_peers": [str(address) for address in addresses]})
        await asyncio.Event().wait()

    asyncio.run(run())


def _run_server(report: Callable[[dict[str, Any]], None], hop_delay: float, **options: Any) -> None:
    options = _SERVER_OPTIONS | _P2P_OPTIONS | options
    if hop_delay:
        port = free_port()
        options["host_maddrs"] = [f"/ip4/127.0.0.1/tcp/{port}"]
        options["announce_maddrs"] = [f"/ip4/127.0.0.1/tcp/{start_delaying_proxy(port, hop_delay)}"]

    class ReportingServer(importlib.import_module("petals.server.server").Server):  # type: ignore[misc]
        """Reports when its blocks can be used and found."""

        reported = False
        container: Any = None

        @property
        def module_container(self) -> Any:
            return self.container

        @module_container.setter
        def module_container(self, container: Any) -> None:
            # `Server.run` assigns it when it takes requests, and again if it restarts it after a crash.
            self.container = container
            if container is not None and not self.reported:
                _announce(self)
                report({"peer_id": self.dht.peer_id.to_base58()})
                self.reported = True

    ReportingServer(**options).run()


def _announce(server: Any) -> None:
    """Return when the DHT says that the server's blocks are online; petals announces them some time later."""
    directory = importlib.import_module("petals.utils.dht")
    now = importlib.import_module("hivemind.utils.timed_storage").get_dht_time
    uids, peer_id = server.module_container.dht_announcer.module_uids, server.dht.peer_id
    online = False
    while not online:
        directory.declare_active_modules(
            server.dht, uids, server.server_info, expiration_time=now() + server.expiration
        )
        found = [
            block.servers.get(peer_id) for block in directory.get_remote_module_infos(server.dht, uids, latest=True)
        ]
        online = all(info is not None and info.state == server.server_info.state for info in found)


_TASKS: dict[str, Any] = {"bootstrap": _run_bootstrap_peer, "server": _run_server}


if __name__ == "__main__":
    main()
