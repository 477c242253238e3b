"""The servers' environment: made, described and removed by `langchain-petals server`.

Petals needs old versions of its companions, so servers have a virtual environment of their own. It lies in the user's
data folder, or in the folder that LANGCHAIN_PETALS_DATA_DIR names. It counts as complete when its marker file is there,
which is written last. While it is replaced, the old one lies beside it, and comes back if the new one fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from langchain_petals.errors import InvalidRequestError, PetalsNotInstalledError
from langchain_petals.swarm.installers import Pip, Say, Uv, path_of, run
from langchain_petals.swarm.interpreter import MARKER, PROGRAM, environment_folder, environment_for, python_in

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

Step = Callable[[str], AbstractContextManager[Say]]

RELEASED = "2.2.0.post1"
"""The released petals whose companions the package has locked."""

_LOCK = Path(__file__).with_name("requirements") / "servers.txt"
# A fork's own requirements of these are replaced by ours: hivemind is the one that the shims know, and torch the one of
# which a CPU build may lie on disk; older bitsandbytes and pydantic cannot be imported beside them.
_REPLACED = ("bitsandbytes", "cpufeature", "hivemind", "pydantic", "torch")
_ADDED = ("psutil",)  # of the servers' program
_VENV_FILE = "pyvenv.cfg"
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
    def is_outdated(self) -> bool:
        """Whether it has the released petals, and was made from another list than the one that is locked now."""
        return self.source == RELEASED and self.lock != _lock_digest()

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
    folder, lock = environment_folder(), _lock_digest()
    python = None if python is None else path_of(python)
    with _alone(folder):
        _recover(folder)
        there = installed()
        is_released = source == f"petals=={RELEASED}"
        shown = RELEASED if is_released else _without_user(source)
        installer = Uv.found() or Pip()
        fits = python is None or (there and there.python.rpartition(".")[0] == installer.version_of(python))
        if there and fits and is_released and (there.source, there.lock) == (shown, lock):
            return there
        interpreter = installer.interpreter(python)
        with _replacing(folder):
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
                    lines = needs_of_fork(_listed(folder))
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
    places = (_old(folder), folder)
    if not any(place.is_dir() for place in places):
        return False
    with _alone(folder):
        removed = [_remove(place) for place in places]
    return any(removed)


def check(python: Path, say: Say) -> dict[str, str]:
    """Return the versions of Python, petals and its companions that an interpreter has.

    Raises:
        PetalsNotInstalledError: It cannot run servers.
    """
    lines = run([python, PROGRAM, "check"], say, environment_for(python), what=f"{python} cannot run servers; it")
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and {"python", "petals"} <= found.keys():
                return {str(name): str(version) for name, version in found.items()}
    msg = f"{python} is not a Python interpreter that can run servers."
    raise PetalsNotInstalledError(msg)


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


def _without_user(source: str) -> str:
    """Return an address without the name and the password of its user, either of which can be a token."""
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else source


def _listed(folder: Path) -> list[str]:
    """Return the requirements of all that is installed in an environment beside pip."""
    python = python_in(folder)
    lines = run([python, "-c", _REQUIREMENTS], lambda _: None, environment_for(python), folder.parent)
    return [str(each) for each in json.loads(lines[-1])]


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


def _lock_digest() -> str:
    return hashlib.sha256(_LOCK.read_bytes()).hexdigest()[:16]


def _old(folder: Path) -> Path:
    """Return where an environment lies while it is replaced."""
    return folder.with_name(f"{folder.name}.old")


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """Keep a complete environment aside while the block makes a new one; bring it back if the block fails."""
    if installed() is None:
        _remove(folder)
    else:
        folder.rename(_old(folder))
    folder.mkdir()
    (folder / _VENV_FILE).touch()  # installers write it late, and `_remove` needs it after an interruption
    try:
        yield
    except BaseException:
        _recover(folder)
        raise
    _remove(_old(folder))


def _recover(folder: Path) -> None:
    """Bring back the environment that a replacement has kept aside, unless the new one is complete."""
    old = _old(folder)
    if installed() is None and (old / MARKER).is_file():
        _remove(folder)
        old.rename(folder)
    _remove(old)


def _remove(folder: Path) -> bool:
    """Remove an environment, and return whether there was one; refuse to remove anything else."""
    if not folder.exists():
        return False
    if any(folder.iterdir()) and not (folder / _VENV_FILE).is_file():
        msg = f"{folder} holds something else than an environment for servers; move it away, and try again."
        raise PetalsNotInstalledError(msg)
    # The marker goes first, so that what an interruption leaves is not taken for complete, and the file by which an
    # environment is known goes last, so that it can still be removed.
    (folder / MARKER).unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _VENV_FILE:
            entry.unlink()
    shutil.rmtree(folder)
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the environment, by a lock on a file, which the system drops at the end.

    The file stays: a process that has opened it would lock nothing if another one removed it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"Another process is changing {folder}; wait until it has ended."
            raise PetalsNotInstalledError(msg) from None
        yield
