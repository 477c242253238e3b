"""The programs that make the servers' environment: uv, or else venv and pip; and the Python that they make it with."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals.errors import InvalidRequestError, PetalsNotInstalledError
from langchain_petals.swarm.interpreter import UNUSABLE, environment_for, python_in

if TYPE_CHECKING:
    import os

Say = Callable[[str], None]
"""Shows a line about a step of the work."""

_PYTHONS = ("3.11", "3.12", "3.10")  # best first: cpufeature has no wheels for 3.12
_OUTPUT_LINES = 20
_PROBE_SECONDS = 30.0
_PROBE = "import sys; print('%d.%d' % sys.version_info[:2])"


class Pip:
    """Makes environments with venv and pip."""

    _probe = f"import ensurepip, venv; {_PROBE}"

    def interpreter(self, python: str | None) -> str:
        """Return the interpreter to make an environment with: `python` if it fits, or one that is found.

        Raises:
            InvalidRequestError: `python` does not fit.
            PetalsNotInstalledError: None was found.
        """
        if python is not None:
            version = self.version_of(python)
            if version is None:
                msg = f"{python!r} is not a Python interpreter that can make an environment (with venv and pip)."
                raise InvalidRequestError(msg)
            if version not in _PYTHONS:
                msg = f"{python!r} is Python {version}; Petals' servers need 3.10 to 3.12."
                raise InvalidRequestError(msg)
            return python
        found = self._found()
        if found is None:
            msg = (
                "Petals' servers need Python 3.10, 3.11 or 3.12, and none was found. Install one and name it with "
                "`langchain-petals server install --python PATH`; or install uv, which fetches one by itself."
            )
            raise PetalsNotInstalledError(msg)
        return found

    def version_of(self, python: str) -> str | None:
        """Return the version of an interpreter that can make environments, as "3.11"; None if it is none."""
        try:
            probe = subprocess.run(  # noqa: S603 - the user's own interpreter
                [python, "-c", self._probe],
                env=environment_for(Path(python)),
                capture_output=True,
                text=True,
                check=True,
                timeout=_PROBE_SECONDS,
            )
        except (OSError, ValueError, subprocess.SubprocessError):
            return None
        version = probe.stdout.strip()
        return version if re.fullmatch(r"\d+\.\d+", version) else None

    def make(self, folder: Path, interpreter: str, say: Say) -> None:
        """Make an empty environment in a folder, which may exist."""
        run([interpreter, "-m", "venv", folder], say, environment_for(Path(interpreter)), folder.parent)

    def install(self, folder: Path, what: Sequence[str], say: Say) -> None:
        """Install what the arguments name, as pip takes them."""
        python = python_in(folder)
        options = ["--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
        environment = environment_for(python) | {"PIP_USER": "0"}
        run([python, "-m", "pip", "install", *options, *what], say, environment, folder.parent)

    def _found(self) -> str | None:
        """Return an interpreter that Petals' servers can use, the best first; None if there is none."""
        for version in _PYTHONS:
            for command in (sys.executable, shutil.which(f"python{version}")):
                if command and self.version_of(command) == version:
                    return path_of(command)
        return None


class Uv(Pip):
    """Makes environments with uv, which can fetch a Python, and takes torch's CPU build."""

    _probe = _PROBE

    def __init__(self, command: str) -> None:
        self._command = command

    @classmethod
    def found(cls) -> Uv | None:
        """Return the uv beside this program's interpreter or on PATH; None if there is none."""
        beside = Path(sys.executable).with_name("uv")
        command = str(beside) if beside.is_file() else shutil.which("uv")
        return None if command is None else cls(str(Path(command).absolute()))

    def interpreter(self, python: str | None) -> str:
        """Return the interpreter to make an environment with, or the version that uv looks for or fetches."""
        return super().interpreter(python) if python is not None else self._found() or _PYTHONS[0]

    def make(self, folder: Path, interpreter: str, say: Say) -> None:
        """Make an empty environment in a folder, which may exist."""
        command = [self._command, "venv", "--allow-existing", "--python", interpreter, str(folder)]
        run(command, say, self._environment(folder), folder.parent)

    def install(self, folder: Path, what: Sequence[str], say: Say) -> None:
        """Install what the arguments name, as pip takes them."""
        command = [self._command, "pip", "install", "--python", str(python_in(folder)), *what]
        run(command, say, self._environment(folder), folder.parent)

    def _environment(self, folder: Path) -> dict[str, str]:
        # A variable, since older uvs lack the option. Users can choose another build or, with "", their own index.
        found = {"UV_TORCH_BACKEND": "cpu"} | environment_for(python_in(folder))
        return {name: value for name, value in found.items() if name != "UV_TORCH_BACKEND" or value}


def path_of(python: str | os.PathLike[str]) -> str:
    """Return the absolute path of an interpreter that is named by its path or, as "python3.11", by its command."""
    return str(Path(shutil.which(python) or python).expanduser().absolute())


def run(
    command: Sequence[str | os.PathLike[str]],
    say: Say,
    environment: dict[str, str],
    folder: Path | None = None,
    *,
    what: str = "Making the environment",
) -> list[str]:
    """Run a command, and say each line that it prints; return the last lines.

    Installers run in the data folder: in the current one they would obey a project's settings (uv), or import its
    modules (pip).

    Args:
        command: The command.
        say: Is called with each line.
        environment: Its environment variables.
        folder: Where it runs; by default in the current folder.
        what: What it does, for the error.

    Raises:
        PetalsNotInstalledError: It failed; has the last lines.
    """
    lines: deque[str] = deque(maxlen=_OUTPUT_LINES)
    started: list[subprocess.Popen[str]] = []
    try:
        _start(started, command, environment, folder)
        [process] = started
        for line in process.stdout or ():
            if line.strip():
                lines.append(line.rstrip())
                say(line.strip())
    except BaseException:
        for process in started:
            process.terminate()
        raise
    finally:
        for process in started:
            process.wait()  # Popen's own wait is short after Ctrl-C, and the lock must outlive the installer
            if process.stdout is not None:
                process.stdout.close()
    if process.returncode == UNUSABLE and lines:
        msg = f"{lines[-1]}."
        raise PetalsNotInstalledError(msg)
    if process.returncode:
        ending = f"{what} failed with exit code {process.returncode}; the end of its output:"
        raise PetalsNotInstalledError("\n".join([ending, *lines]))
    return list(lines)


def _start(
    started: list[subprocess.Popen[str]],
    command: Sequence[str | os.PathLike[str]],
    environment: dict[str, str],
    folder: Path | None,
) -> None:
    """Start a command, and add it to those that were started.

    The handler of a signal may raise an exception. In the middle of Popen, that would lose a process that runs already.
    So signals that come here are handled afterwards.
    """
    late: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()  # no other thread runs handlers, or may set them
    known = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM) if is_main}
    handlers = {each: handler for each, handler in known.items() if callable(handler)}
    try:
        for each in handlers:
            signal.signal(each, lambda number, _: late.append(number))
        process = subprocess.Popen(  # noqa: S603 - all commands are named in this room
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            cwd=folder,
        )
        started.append(process)
    except OSError as error:
        msg = f"{command[0]} could not be started ({error.strerror})."
        raise PetalsNotInstalledError(msg) from None
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number in late:
            signal.raise_signal(number)
