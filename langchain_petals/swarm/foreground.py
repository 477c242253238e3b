"""One real server as a child of this process; see `petals_servers.foreground` for what it tells."""

from __future__ import annotations

import codecs
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil

from langchain_petals.errors import InvalidRequestError, LocalSwarmError, PetalsNotInstalledError
from langchain_petals.swarm.interpreter import HOW_TO_REPLACE, PROGRAM, UNUSABLE, environment_for, make_work_dir
from langchain_petals.swarm.supervisor_link import how_it_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pydantic import SecretStr
    from typing_extensions import Self

    Event = dict[str, Any]

_LOG_LINES = 20
_GRACE_SECONDS = 15.0  # for announcing the end, and closing what others use
_KILL_SECONDS = 5.0
_BAR = re.compile(r"\d+%\|")  # of tqdm


class ForegroundServer:
    """A server of Petals, in a process of its own.

    Use it as a context manager: at the end of the block the server tells the swarm that it leaves, and all of its
    processes and temporary files are gone. If this process is killed, they end, too.

    Args:
        python: The servers' interpreter.
        arguments: Petals' options, as on the command line of `petals.cli.run_server`.
        key: The hub's key.
        on_log: Called with each line of Petals' log, on another thread.

    Raises:
        PetalsNotInstalledError: `python` could not be started.
    """

    def __init__(
        self,
        python: Path,
        arguments: Sequence[str],
        key: SecretStr | None = None,
        on_log: Callable[[str], object] = str,
    ) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._on_log, self._work_dir = on_log, make_work_dir()
        self._key = key.get_secret_value() if key else None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user names the interpreter
                [python, PROGRAM, "run"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment_for(python) | {"TMPDIR": self._work_dir, "TOKENIZERS_PARALLELISM": "false"},
                start_new_session=True,  # Ctrl-C must reach only this process, which then ends the server
            )
        except OSError as error:
            shutil.rmtree(self._work_dir, ignore_errors=True)
            msg = f"The servers' interpreter {python} could not be started ({error.strerror}). {HOW_TO_REPLACE}"
            raise PetalsNotInstalledError(msg) from None
        order = {
            "command": os.getpid(),
            "work_dir": self._work_dir,
            "arguments": list(arguments),
            "token": self._key,  # not as an argument, which other users can read
        }
        readers = {"petals-server-events": self._read_events, "petals-server-log": self._read_log}
        self._readers = [threading.Thread(target=run, name=name, daemon=True) for name, run in readers.items()]
        for reader in self._readers:
            reader.start()
        with suppress(BrokenPipeError):  # it has ended; `next_event` says why
            self._pipe("stdin").write(json.dumps(order).encode() + b"\n")
            self._pipe("stdin").flush()

    @property
    def pid(self) -> int:
        """Process id, which is also that of the server's session."""
        return self._process.pid

    def next_event(self) -> Event:
        """Wait for the next event, and return it: one of the program's, or {"event": "bar", "line": ...} of a download.

        Raises:
            InvalidRequestError: Petals refuses its options; names those that there are.
            PetalsNotInstalledError: The interpreter's environment cannot run petals.
            LocalSwarmError: The server has failed or ended; has the end of its log.
        """
        event = self._events.get()
        kind = event["event"]
        if kind == "refused":
            options = sorted(
                set(event["options"]) - {"--config", "--converted_model_name_or_path", "--help", "--token"}
            )
            msg = f"Petals does not take these options: {event['problem']}. It has\n{', '.join(options)}."
            raise InvalidRequestError(msg)
        if kind == "failed":
            self._readers[1].join(_KILL_SECONDS)  # the end of the log may be on its way
            raise LocalSwarmError(self._with_log(f"The server failed with {self._plain(event['reason'])}."))
        if kind == "ended":
            code = self._process.wait()
            if code == UNUSABLE and self._log:
                msg = f"{self._log[-1]}. {HOW_TO_REPLACE}"
                raise PetalsNotInstalledError(msg)
            raise LocalSwarmError(self._with_log(f"The server {how_it_ended(code)}."))
        return event

    def wait_for(self, kind: str, say: Callable[[str], None]) -> Event:
        """Return the next event of a kind; `say` is called with what happens until then.

        Raises:
            PetalsError: As `next_event`.
        """
        while True:
            event = self.next_event()
            if event["event"] == kind:
                return event
            if event["event"] == "bar":
                say(event["line"])
            elif event["event"] == "loaded":
                say(f"block {event['block']} is there")

    def end(self) -> None:
        """End the server and all of its processes, and remove its files; return when they are gone.

        A `KeyboardInterrupt` meanwhile ends them at once. Ending twice does nothing.
        """
        family = [] if self._process.poll() is not None else _family(self._process.pid)  # its id may be another's
        try:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
        finally:
            with suppress(ProcessLookupError, PermissionError):  # no process is left, or on macOS only zombies
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for process in psutil.wait_procs(family, _KILL_SECONDS)[1]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            for reader in self._readers:
                reader.join(_KILL_SECONDS)
            for name in ("stdin", "stdout", "stderr"):
                with suppress(BrokenPipeError):
                    self._pipe(name).close()
            shutil.rmtree(self._work_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _pipe(self, name: str) -> Any:
        return getattr(self._process, name)

    def _read_events(self) -> None:
        for line in self._pipe("stdout"):
            try:
                self._events.put(json.loads(line))
            except ValueError:  # the interpreter's site packages may print before the program runs
                self._take(line.decode("utf-8", "replace"))
        self._readers[1].join(_KILL_SECONDS)  # the log's last lines explain the end
        self._events.put({"event": "ended"})

    def _read_log(self) -> None:
        """Read lines and bars: a bar is written again and again after a carriage return, without a line's end."""
        pending, stream = "", self._pipe("stderr").fileno()
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
        while data := os.read(stream, 2**16):
            *lines, pending = re.split(r"[\r\n]+", pending + decoder.decode(data))
            for line in lines:
                self._take(line)
        self._take(pending)

    def _take(self, line: str) -> None:
        shown = self._plain(line)
        if _BAR.search(shown):
            self._events.put({"event": "bar", "line": shown})
        elif shown:
            self._log.append(shown)
            self._on_log(shown)

    def _plain(self, text: str) -> str:
        """Return a text without the key, and without codes that change the terminal: strangers' names are in it."""
        hidden = text.replace(self._key, "[key]") if self._key else text
        return "".join(each for each in hidden if each.isprintable()).strip()

    def _with_log(self, problem: str) -> str:
        return "\n".join([f"{problem} The end of its log (--verbose shows all of it):", *self._log])


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
