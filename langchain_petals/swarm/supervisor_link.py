"""The program's connection to the supervisor of its local swarm."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from langchain_petals.errors import LocalSwarmError, PetalsNotInstalledError
from langchain_petals.swarm.interpreter import HOW_TO_REPLACE, PROGRAM, UNUSABLE, environment_for, make_work_dir

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",  # the servers share this machine's cores
    "TOKENIZERS_PARALLELISM": "false",
}
_LOG_LINES = 20
_GRACE_SECONDS = 5.0


class SupervisorLink:
    """Starts the supervisor, sends it orders, and keeps its reports; see `petals_servers.supervisor`.

    `python` is the servers' interpreter. `log_dir` is a folder for logs that are kept; without it, logs are temporary.
    `pids` maps names to process ids.

    Raises:
        PetalsNotInstalledError: `python` could not be started.
        OSError: `log_dir` could not be made, or not be written to.
    """

    def __init__(self, python: Path, log_dir: Path | None) -> None:
        self._work_dir = make_work_dir()
        self._keeps_logs = log_dir is not None
        self._log_dir = log_dir or Path(self._work_dir)
        self._owner, self._python = os.getpid(), python
        self.pids: dict[str, int] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self._codes: dict[str, int] = {}
        self._stopped: str | None = None  # why the supervisor does not take orders any more
        self._changed = threading.Condition()
        self._connection, theirs = Pipe()
        with ExitStack() as if_it_fails:
            if_it_fails.callback(shutil.rmtree, self._work_dir, ignore_errors=True)
            if_it_fails.callback(self._connection.close)
            with theirs:
                self._process = self._start_supervisor(theirs.fileno())
            if_it_fails.pop_all()
        self._send({"program": self._owner, "work_dir": self._work_dir})
        self._listener = threading.Thread(target=self._listen, name="petals-local-swarm", daemon=True)
        self._listener.start()

    def _start_supervisor(self, connection: int) -> subprocess.Popen[bytes]:
        self._log_dir.mkdir(parents=True, exist_ok=True)
        with self.log_path("supervisor").open("wb") as log:
            try:
                return subprocess.Popen(  # noqa: S603 - the user names the interpreter
                    [self._python, PROGRAM],
                    stdin=connection,
                    stdout=log,
                    stderr=log,
                    env=environment_for(self._python) | _VARIABLES | {"TMPDIR": self._work_dir},
                    cwd=self._work_dir,
                    start_new_session=True,  # Ctrl-C must reach only the program, which then ends the swarm
                )
            except OSError as error:
                msg = f"The servers' interpreter {self._python} could not be started ({error.strerror}). "
                raise PetalsNotInstalledError(msg + HOW_TO_REPLACE) from None

    @property
    def is_ours(self) -> bool:
        """Whether this process started the supervisor; False in a fork of that process."""
        return os.getpid() == self._owner

    def log_path(self, name: str) -> Path:
        """Return the path of a process's log."""
        return self._log_dir / f"{name}.log"

    def start(self, name: str, **order: Any) -> None:
        """Order a new process; `wait_ready` waits for its report."""
        self.log_path(name).unlink(missing_ok=True)
        self._send({"order": "start", "name": name, "log_path": str(self.log_path(name)), **order})

    def wait_ready(
        self, roles: dict[str, str], deadline: float, timeout: float, say: Callable[[str], None]
    ) -> dict[str, Any]:
        """Return the reports of all named processes.

        `roles` maps the names to descriptions for errors. `deadline` is a time of `time.monotonic()`. `timeout`, in
        seconds, is a text for the error. `say` is called with what is waited for.

        Raises:
            LocalSwarmError: A process ended, or the deadline has passed.
            PetalsNotInstalledError: The interpreter's environment cannot run petals.
        """

        def is_over() -> bool:
            waiting = [role[0].lower() + role[1:] for name, role in roles.items() if name not in self._reports]
            if waiting:
                say(f"Waiting for {' and '.join(waiting)}" if self.pids else "Importing Petals for the servers")
            return bool(self._stopped or self._codes.keys() & roles or not waiting)

        with self._changed:
            self._changed.wait_for(is_over, deadline - time.monotonic())
            for name, role in roles.items():
                if name in self._codes:
                    ending = f"{role} {how_it_ended(self._codes[name])} while starting."
                    raise LocalSwarmError(self._describe(name, ending))
            if self._stopped and self._process.returncode == UNUSABLE and (lines := self._end_of_log("supervisor")):
                msg = f"{lines[-1]}. {HOW_TO_REPLACE}"
                raise PetalsNotInstalledError(msg)
            if self._stopped:
                raise LocalSwarmError(self._describe("supervisor", self._stopped))
            for name, role in roles.items():
                if name not in self._reports:
                    late = f"{role} was not ready within startup_timeout={timeout:g} s; raise startup_timeout."
                    raise LocalSwarmError(self._describe(name if name in self.pids else "supervisor", late))
            return {name: self._reports[name] for name in roles}

    def is_gone(self, name: str) -> bool:
        """Return whether a process that was ready has ended."""
        if name in self._codes or self._stopped is None:
            return name in self._codes
        return all(process.status() == psutil.STATUS_ZOMBIE for process in _existing({self.pids[name]}))

    def kill(self, name: str) -> None:
        """End a process and its children; return when they are gone.

        Raises:
            LocalSwarmError: They still run after 5 s.
        """
        self._send({"order": "end", "name": name})
        with self._changed:
            gone = self._changed.wait_for(
                lambda: self._stopped or name in self._codes or name not in self.pids, _GRACE_SECONDS
            )
        if self._stopped:
            self._end_survivors()
        elif not gone:
            msg = f"{name} (process {self.pids[name]}) still runs {_GRACE_SECONDS:g} s after it was killed."
            raise LocalSwarmError(msg)

    def end(self) -> None:
        """End all processes and remove the temporary files; return when they are gone."""
        if not self.is_ours:
            return
        with self._changed:
            self._stopped = "The LocalSwarm was closed."
            self._changed.notify_all()
        try:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
            self._process.kill()  # does nothing if it has ended
            self._process.wait()
            self._end_survivors()
        finally:
            self._listener.join(_GRACE_SECONDS)
            self._connection.close()
            shutil.rmtree(self._work_dir, ignore_errors=True)

    def _end_survivors(self) -> None:
        """End the children of a supervisor that was killed; they would end by themselves, but later."""
        survivors = _existing({pid for name, pid in self.pids.items() if name not in self._codes})
        for survivor in survivors:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(survivor.pid, signal.SIGKILL)
        psutil.wait_procs(survivors, _GRACE_SECONDS)

    def _send(self, message: dict[str, Any]) -> None:
        with self._changed, suppress(OSError):  # the listener notices the end, and records its reason
            self._connection.send_bytes(json.dumps(message).encode())

    def _listen(self) -> None:
        """Record the supervisor's events until it ends."""
        with suppress(EOFError, OSError):
            while True:
                event = json.loads(self._connection.recv_bytes())
                kind, name = event.pop("event"), event.pop("name")
                logger.debug("%s %s: %s", name, kind, event)
                with self._changed:
                    if kind == "started":
                        self.pids[name] = event["pid"]
                    elif kind == "ready":
                        self._reports[name] = event
                    else:
                        self._codes[name] = event["code"]
                    self._changed.notify_all()
        code = self._process.wait()
        with self._changed:
            self._stopped = self._stopped or f"The supervisor of the servers ({self._python}) {how_it_ended(code)}."
            self._changed.notify_all()

    def _describe(self, name: str, problem: str) -> str:
        """Return a description of a process's problem with the end of its log."""
        lines = self._end_of_log(name)
        if not lines:
            return f"{problem} Its log is empty."
        kept = "LocalSwarm(log_dir=...) keeps all of it"
        if self._keeps_logs:
            kept = f"all of it is in {self.log_path(name)}"
        return "\n".join([f"{problem} The end of its log ({kept}):", *lines])

    def _end_of_log(self, name: str) -> list[str]:
        with suppress(FileNotFoundError):
            return self.log_path(name).read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return []


def how_it_ended(code: int) -> str:
    """Return the end of a sentence about a process."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _existing(pids: set[int]) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if process.pid in pids]
