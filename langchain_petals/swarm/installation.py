"""The servers' environment: made, described and removed by `langchain-petals server`.

Petals needs old versions of its companions, so servers have a virtual environment of their own. It lies in the user's
data folder, or in the folder that LANGCHAIN_PETALS_DATA_DIR names. It counts as complete when its marker file is there,
which is written last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from langchain_petals.errors import InvalidRequestError, PetalsNotInstalledError
from langchain_petals.swarm.interpreter import (
    MARKER,
    PROGRAM,
    UNUSABLE,
    environment_folder,
    environment_for,
    python_in,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    Say = Callable[[str], None]
    Step = Callable[[str], AbstractContextManager[Say]]

RELEASED = "2.2.0.post1"
"""The released petals whose companions the package has locked."""

_LOCK = Path(__file__).with_name("requirements") / "servers.txt"
_PYTHONS = ("3.11", "3.12", "3.10")  # best first: cpufeature has no wheels for 3.12
# A fork's own requirements of these are replaced by ours: hivemind is the one that the shims know, and torch the one of
# which a CPU build may lie on disk; older bitsandbytes and pydantic cannot be imported beside them.
_REPLACED = ("bitsandbytes", "cpufeature", "hivemind", "pydantic", "torch")
_ADDED = ("psutil",)  # of the servers' program
_OUTPUT_LINES = 20
_PROBE_SECONDS = 30.0
_PROBE = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
_REQUIREMENTS = """\
import importlib.metadata, json
found = {each.metadata["Name"]: each.requires or [] for each in importlib.metadata.distributions()}
print(json.dumps([need for name in found if name not in ("pip", "setuptools", "wheel") for need in found[name]]))"""


@dataclass(frozen=True)
class Installation:
    """A complete environment for servers.

    Attributes:
        folder: Its folder.
        python: Version of its Python.
        petals: Version of its petals.
        source: What was asked for: the released version, or a folder or an address.
        lock: Digest of the locked list it was made from.
    """

    folder: Path
    python: str
    petals: str
    source: str
    lock: str

    @property
    def interpreter(self) -> Path:
        """Its Python."""
        return python_in(self.folder)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.lstat().st_size for file in self.folder.rglob("*"))


def installed() -> Installation | None:
    """Return the complete environment for servers; None if there is none."""
    folder = environment_folder()
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        made = Installation(folder, **{name: str(found[name]) for name in ("python", "petals", "source", "lock")})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return made if python_in(folder).is_file() else None


def install(petals: str | None = None, python: str | os.PathLike[str] | None = None, *, step: Step) -> Installation:
    """Make the environment for servers, or return it if it is as asked; replace one that is not.

    Args:
        petals: "2.2.0.post1", the default; or the folder or address of git main or a fork, which gets the requirements
            that it names itself.
        python: The interpreter to make it with; by default a Python 3.10 to 3.12 is looked for, and uv fetches one.
        step: Context manager that shows a step of the work; it yields a function that shows a line about it.

    Raises:
        InvalidRequestError: An argument cannot be used.
        PetalsNotInstalledError: It could not be made; has the end of what the installer said.
    """
    source = _source(RELEASED if petals is None else petals)
    folder, lock = environment_folder(), hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]
    with _alone(folder):
        there = installed()
        is_released = source == f"petals=={RELEASED}"
        shown = RELEASED if is_released else _without_password(source)
        installer = _Uv.found() or _Pip()
        fits = python is None or (there and there.python.rpartition(".")[0] == _version_of(str(python)))
        if there and fits and is_released and (there.source, there.lock) == (shown, lock):
            return there
        interpreter = installer.interpreter(python)
        _remove(folder)
        with step(f"Making an environment with Python in {folder}") as say:
            installer.make(folder, interpreter, say)
        if is_released:
            with step("Installing what Petals needs") as say:
                installer.install(folder, ["-r", str(_LOCK)], say)
            with step(f"Installing Petals {RELEASED}") as say:
                installer.install(folder, ["--no-deps", source], say)
        else:
            with step(f"Installing {shown}") as say:
                installer.install(folder, ["--no-deps", source], say)
                needs = folder / "requirements.txt"
                lines = needs_of_fork(_listed(python_in(folder)))
                needs.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            with step("Installing what it needs") as say:
                installer.install(folder, ["-r", str(needs)], say)
        with step("Trying whether servers can run there") as say:
            versions = check(python_in(folder), say)
        made = Installation(folder, versions["python"], versions["petals"], shown, lock)
        fields = {name: value for name, value in asdict(made).items() if name != "folder"}
        (folder / MARKER).write_text(json.dumps(fields), encoding="utf-8")
        return made


def uninstall() -> bool:
    """Remove the environment for servers; return whether there was one, complete or not.

    Raises:
        PetalsNotInstalledError: Its folder holds something else, or an installation is going on.
    """
    folder = environment_folder()
    if not folder.is_dir():
        return False
    with _alone(folder) as lock:
        _remove(folder)
        lock.unlink()
    return True


def check(python: Path, say: Say) -> dict[str, str]:
    """Return the versions of Python, petals and its companions that an interpreter has.

    Raises:
        PetalsNotInstalledError: It cannot run servers.
    """
    lines = _run([python, PROGRAM, "check"], say, environment_for(python), what=f"{python} cannot run servers; it")
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and {"python", "petals"} <= found.keys():
                return {str(name): str(version) for name, version in found.items()}
    msg = f"{python} is not a Python interpreter that can run servers."
    raise PetalsNotInstalledError(msg)


class _Pip:
    """Makes environments with venv and pip."""

    def interpreter(self, python: str | os.PathLike[str] | None) -> str:
        if python is not None:
            version = _version_of(str(python))
            if version is None:
                msg = f"{str(python)!r} is not a Python interpreter that can make an environment (with venv and pip)."
                raise InvalidRequestError(msg)
            if version not in _PYTHONS:
                msg = f"{str(python)!r} is Python {version}; Petals' servers need 3.10 to 3.12."
                raise InvalidRequestError(msg)
            return str(python)
        found = _found_interpreter()
        if found is None:
            msg = (
                "Petals' servers need Python 3.10, 3.11 or 3.12, and none was found. Install one and name it with "
                "`langchain-petals server install --python PATH`; or install uv, which fetches one by itself."
            )
            raise PetalsNotInstalledError(msg)
        return found

    def make(self, folder: Path, interpreter: str, say: Say) -> None:
        _run([interpreter, "-m", "venv", folder], say, environment_for(Path(interpreter)))

    def install(self, folder: Path, what: Sequence[str], say: Say) -> None:
        python = python_in(folder)
        options = ["--no-input", "--progress-bar", "off", "--disable-pip-version-check"]
        _run([python, "-m", "pip", "install", *options, *what], say, environment_for(python))


class _Uv(_Pip):
    """Makes environments with uv, which can fetch a Python, and takes torch's CPU build."""

    def __init__(self, command: str) -> None:
        self._command = command

    @classmethod
    def found(cls) -> _Uv | None:
        beside = Path(sys.executable).with_name("uv")
        command = str(beside) if beside.is_file() else shutil.which("uv")
        return None if command is None else cls(command)

    def interpreter(self, python: str | os.PathLike[str] | None) -> str:
        return super().interpreter(python) if python is not None else _found_interpreter() or _PYTHONS[0]

    def make(self, folder: Path, interpreter: str, say: Say) -> None:
        _run([self._command, "venv", "--python", interpreter, folder], say, self._environment(folder))

    def install(self, folder: Path, what: Sequence[str], say: Say) -> None:
        command = [self._command, "pip", "install", "--python", str(python_in(folder)), *what]
        _run(command, say, self._environment(folder))

    def _environment(self, folder: Path) -> dict[str, str]:
        # A variable, since older uvs lack the option. Users can choose another build or, with "", their own index.
        found = {"UV_TORCH_BACKEND": "cpu"} | environment_for(python_in(folder))
        return {name: value for name, value in found.items() if name != "UV_TORCH_BACKEND" or value}


def _source(petals: str) -> str:
    """Return what to install, as pip and uv take it."""
    if petals == RELEASED:
        return f"petals=={RELEASED}"
    folder = Path(petals).expanduser()
    if petals and folder.is_dir():
        if not any((folder / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")):
            msg = f"The folder {petals!r} holds no Python package: no pyproject.toml, setup.cfg or setup.py."
            raise InvalidRequestError(msg)
        return str(folder.absolute())
    if re.match(r"(git\+)?(https|ssh|file)://", petals):
        is_file = urlsplit(petals).path.endswith((".whl", ".zip", ".tar.gz"))
        return petals if petals.startswith("git+") or is_file else f"git+{petals}"
    msg = (
        f"petals={petals!r} is neither {RELEASED} nor a folder nor an address of a Git repository. For another version "
        "give the folder or the address of its source."
    )
    raise InvalidRequestError(msg)


def _without_password(source: str) -> str:
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.password else source


def _listed(python: Path) -> list[str]:
    """Return the requirements of all that is installed beside pip."""
    listed = subprocess.run(  # noqa: S603 - the environment's own interpreter
        [python, "-c", _REQUIREMENTS], env=environment_for(python), capture_output=True, text=True, check=True
    )
    return [str(each) for each in json.loads(listed.stdout)]


def needs_of_fork(requirements: Sequence[str]) -> list[str]:
    """Return what to install for a fork that has these requirements: they, but for those that are replaced by ours.

    Raises:
        PetalsNotInstalledError: A requirement cannot be read.
    """
    ours = [line for line in _LOCK.read_text(encoding="utf-8").splitlines() if "==" in line]
    needs = [line for line in ours if _name_of(line) in (*_REPLACED, *_ADDED)]
    for requirement in requirements:
        try:
            parsed = Requirement(requirement)
        except InvalidRequirement as error:
            msg = f"The source to install has a requirement that cannot be read: {requirement!r} ({error})."
            raise PetalsNotInstalledError(msg) from None
        is_extra = parsed.marker is not None and "extra" in str(parsed.marker)
        if not is_extra and canonicalize_name(parsed.name) not in _REPLACED:
            needs.append(requirement)
    return needs


def _name_of(line: str) -> str:
    return canonicalize_name(line.partition("==")[0])


def _found_interpreter() -> str | None:
    """Return an interpreter that Petals' servers can use, the best first; None if there is none."""
    for version in _PYTHONS:
        for command in (sys.executable, shutil.which(f"python{version}")):
            if command and _version_of(command) == version:
                return command
    return None


def _version_of(python: str) -> str | None:
    """Return the version of an interpreter that can make environments, as "3.11"; None if it is none."""
    try:
        probe = subprocess.run(  # noqa: S603 - the user's own interpreter
            [python, "-c", _PROBE],
            env=environment_for(Path(python)),
            capture_output=True,
            text=True,
            check=True,
            timeout=_PROBE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return probe.stdout.strip()


def _run(
    command: Sequence[str | os.PathLike[str]],
    say: Say,
    environment: dict[str, str],
    *,
    what: str = "Making the environment",
) -> list[str]:
    """Run a command, and say each line that it prints; return the last lines.

    Raises:
        PetalsNotInstalledError: It failed; has the last lines.
    """
    lines: deque[str] = deque(maxlen=_OUTPUT_LINES)
    try:
        process = subprocess.Popen(  # noqa: S603 - all commands are named in this module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
    except OSError as error:
        msg = f"{command[0]} could not be started ({error.strerror})."
        raise PetalsNotInstalledError(msg) from None
    with process:
        try:
            for line in process.stdout or ():
                if line.strip():
                    lines.append(line.rstrip())
                    say(line.strip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode == UNUSABLE and lines:
        msg = f"{lines[-1]}."
        raise PetalsNotInstalledError(msg)
    if process.returncode:
        ending = f"{what} failed with exit code {process.returncode}; the end of its output:"
        raise PetalsNotInstalledError("\n".join([ending, *lines]))
    return list(lines)


def _remove(folder: Path) -> None:
    """Remove an environment; refuse to remove anything else."""
    if not folder.exists():
        return
    if any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        msg = f"{folder} holds something else than an environment for servers; move it away, and try again."
        raise PetalsNotInstalledError(msg)
    (folder / MARKER).unlink(missing_ok=True)  # first, so that what an interruption leaves is not taken for complete
    shutil.rmtree(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Keep other processes from changing the environment, by a lock on a file, which the system drops at the end."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f"{folder.name}.lock")
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"Another process is changing {folder}; wait until it has ended."
            raise PetalsNotInstalledError(msg) from None
        yield path
