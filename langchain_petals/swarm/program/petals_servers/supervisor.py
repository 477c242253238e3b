"""The supervisor of a local swarm, which `LocalSwarm` starts.

Importing torch and petals takes seconds and about 300 MB. The supervisor imports them once and forks the others:

    the program with the LocalSwarm
    `- supervisor              imports petals; forks the others, and ends them when the program is gone
       |- bootstrap            a DHT peer without blocks; the swarm stays reachable when servers end
       |  `- p2pd
       |- server-0             petals' own Server; it and its descendants are one process group
       |  |- connection handler
       |  `- DHT node
       |     `- p2pd
       `- server-1 ...

The program and the supervisor exchange JSON objects over a socket, the supervisor's standard input. The command line
holds only the folder of this program.

    to the supervisor, first   {"program": its pid, "work_dir": folder for sockets and temporary files}
                       then    {"order": "start", "name": ..., "log_path": ..., "task": "bootstrap" or "server",
                                ...options of the task}
                               {"order": "end", "name": ...}
    from the supervisor        {"event": "started", "name": ..., "pid": ...}
                               {"event": "ready", "name": ..., "peer_id": ..., "initial_peers": [...]}
                               {"event": "ended", "name": ..., "code": ...}
"""

from __future__ import annotations

import ctypes
import functools
import json
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
from typing import Any, NoReturn

from .leavings import family_of, remove_shared_memory
from .parent import watch_parent
from .shims import use_own_locks
from .tasks import prepare, run_bootstrap_peer, run_server

_TASKS: dict[str, Any] = {"bootstrap": run_bootstrap_peer, "server": run_server}
_PROGRAM_CHECK_SECONDS = 1.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main() -> None:
    """Run the supervisor until the program closes the socket, sends SIGTERM, or is gone."""
    connection = Connection(os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    settings = json.loads(connection.recv_bytes())
    prepare(settings["work_dir"])
    Supervisor(connection, settings["program"], Path(settings["work_dir"])).run()
    os._exit(0)  # skip the slow exit handlers of torch and petals, since `LocalSwarm.close` waits for this


@dataclass(frozen=True)
class _Child:
    name: str
    reports: Connection


class Supervisor:
    """Starts and ends the swarm's processes as ordered, and ends all of them when the program is gone.

    `program` is the program's process id. The supervisor removes `work_dir`, since the program may be gone.
    """

    def __init__(self, connection: Connection, program: int, work_dir: Path) -> None:
        self._connection, self._program, self._work_dir = connection, program, work_dir
        self._children: dict[int, _Child] = {}  # by process id, which is also the id of the process group
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    def run(self) -> None:
        """Serve orders until the program closes the connection or is gone; then end all children."""
        if sys.platform == "linux":  # adopt all descendants whose parent ends, to wait for them
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        caught, wakeup = socket.socketpair()
        for end in (caught, wakeup):
            end.settimeout(0)
        # Signals only wake up the loop; they do not interrupt other code.
        signal.set_wakeup_fd(wakeup.fileno())
        for each in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(each, lambda *_: None)  # with SIG_IGN, the signal would not reach the socket
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(caught, selectors.EVENT_READ, functools.partial(self._on_signal, caught))
        self._selector.register(self._connection, selectors.EVENT_READ, self._on_order)
        try:
            # With a timeout, since children of a program that is gone may still hold its end of the socket.
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
        with suppress(ChildProcessError):  # there is no child
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = ended
                if pid in self._children:  # others are descendants that the supervisor has adopted
                    self._end(pid, os.waitstatus_to_exitcode(status))

    def _on_order(self) -> None:
        try:
            order = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            self._stopping = True
            return
        if order.pop("order") == "start":
            self._start(**order)
            return
        for pid in [pid for pid, child in self._children.items() if child.name == order["name"]]:
            self._end(pid)

    def _on_report(self, child: _Child) -> None:
        if child.reports.closed:  # closed by an event that the loop handled just before
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
        with suppress(PermissionError):  # the child has done it itself, or is dead
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
            use_own_locks()
            _TASKS[task](reports.send, **options)
            code = 0
        except BaseException:  # noqa: BLE001 - this fork must end here, not in the supervisor's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _end(self, pid: int, code: int = -signal.SIGKILL) -> None:
        """End a child and its descendants; return when they are gone."""
        child = self._children.pop(pid)
        family = family_of(pid)
        with suppress(ProcessLookupError, PermissionError):  # no process is left, or on macOS only zombies
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:  # the child, then its children, which this process adopts
                os.waitpid(-pid, 0)
        remove_shared_memory(pid, family)
        if child.reports in self._selector.get_map():
            self._selector.unregister(child.reports)
        child.reports.close()
        self._tell("ended", child.name, code=code)

    def _tell(self, event: str, name: str, **more: Any) -> None:
        with suppress(OSError):  # the program is gone; the loop will notice that next
            self._connection.send_bytes(json.dumps({"event": event, "name": name, **more}).encode())
