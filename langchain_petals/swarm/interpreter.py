"""Which Python interpreter runs the servers' program, and with which environment variables."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path

import platformdirs

from langchain_petals.errors import PetalsNotInstalledError
from langchain_petals.hub import KEY_VARIABLES

PROGRAM = Path(__file__).with_name("program")
"""The servers' program, for `python PROGRAM`; with the argument `check` it tells what it has found."""

UNUSABLE = 78
"""Exit code of the program if its interpreter cannot run petals; the last line of its output tells why."""

VARIABLE = "LANGCHAIN_PETALS_SERVER_PYTHON"
"""Environment variable that names the servers' interpreter."""

DATA_VARIABLE = "LANGCHAIN_PETALS_DATA_DIR"
"""Environment variable that names the folder for the servers' environment, instead of the user's data folder."""

MARKER = "langchain-petals.json"
"""File in the servers' environment that is written when it is complete."""

HOW_TO_INSTALL = "Run `langchain-petals server install`, which makes an environment for servers."
HOW_TO_REPLACE = (
    "Run `langchain-petals server install`, which makes an environment for servers, and do not name another "
    f"interpreter (python=, {VARIABLE})."
)

_KEY_NAMES = (*KEY_VARIABLES, "HUGGING_FACE_HUB_TOKEN")  # the latter is an old name of huggingface_hub's
_LONGEST_SOCKET_FOLDER = 60  # characters; the limit for a socket's whole path is 103 on macOS, 107 on Linux
_OF_THIS_PYTHON = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")


def environment_folder() -> Path:
    """Return the folder of the environment that `langchain-petals server install` makes, which may not be there."""
    data = os.environ.get(DATA_VARIABLE)
    return (Path(data).expanduser().absolute() if data else platformdirs.user_data_path("langchain-petals")) / "servers"


def python_in(environment: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return environment / "bin" / "python"


def found_python(python: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the interpreter that runs the servers; None if there is none.

    It is `python`; else the one that LANGCHAIN_PETALS_SERVER_PYTHON names; else that of the environment that
    `langchain-petals server install` has made; else this program's own, if petals is installed beside it.

    Raises:
        PetalsNotInstalledError: The one that was named does not exist.
    """
    named, by = (python, "python") if python is not None else (os.environ.get(VARIABLE), VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()  # not resolved: a virtual environment's is a link
        if not path.is_file():
            msg = (
                f"{by}={str(named)!r} is not a file. Name a Python interpreter, or leave it out and run "
                "`langchain-petals server install`."
            )
            raise PetalsNotInstalledError(msg)
        return path
    made = environment_folder()
    if (made / MARKER).is_file() and python_in(made).is_file():
        return python_in(made)
    try:
        importlib.metadata.version("petals")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(sys.executable)


def servers_python(python: str | os.PathLike[str] | None = None) -> Path:
    """Return the interpreter that runs the servers, as `found_python`.

    Raises:
        PetalsNotInstalledError: There is none, or the one that was named does not exist.
    """
    found = found_python(python)
    if found is None:
        msg = f"No petals was found to run servers with. {HOW_TO_INSTALL}"
        raise PetalsNotInstalledError(msg)
    return found


def environment_for(python: Path) -> dict[str, str]:
    """Return the environment variables for a process of an interpreter.

    The hub's key is left out, since other users can read the variables. Paths for this program's modules are left out,
    unless it is the same interpreter.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _KEY_NAMES}
    if python != Path(sys.executable):
        return {name: value for name, value in kept.items() if name not in _OF_THIS_PYTHON}
    folders = [str(Path(each).absolute()) for each in kept.get("PYTHONPATH", "").split(os.pathsep) if each]
    return kept | {"PYTHONPATH": os.pathsep.join(folders)}  # absolute, since the process may run in another folder


def make_work_dir() -> str:
    """Make a folder for the sockets and temporary files of a process of the program."""
    temporary = tempfile.gettempdir()
    folder = temporary if len(temporary) <= _LONGEST_SOCKET_FOLDER else "/tmp"  # noqa: S108 - a path that is short
    return tempfile.mkdtemp(prefix="petals-", dir=folder)
