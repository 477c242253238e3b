"""Which Python interpreter runs the servers."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

import platformdirs

from langchain_petals.errors import PetalsNotInstalledError

VARIABLE = "LANGCHAIN_PETALS_SERVER_PYTHON"
"""Environment variable that names the servers' interpreter."""

DATA_VARIABLE = "LANGCHAIN_PETALS_DATA_DIR"
"""Environment variable that names the folder for the servers' environment, instead of the user's data folder."""

MARKER = "langchain-petals.json"
"""File in the servers' environment that is written when it is complete."""

HOW_TO_INSTALL = "Run `langchain-petals server install`, which makes an environment for servers."


def environment_folder() -> Path:
    """Return the folder of the environment that `langchain-petals server install` makes, which may not be there."""
    data = os.environ.get(DATA_VARIABLE)
    return (Path(data).expanduser().absolute() if data else platformdirs.user_data_path("langchain-petals")) / "servers"


def python_in(environment: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return environment / "bin" / "python"


def servers_python(python: str | os.PathLike[str] | None = None) -> Path:
    """Return the interpreter that runs the servers: `python`, or the first of the places that `LocalSwarm` names.

    Raises:
        PetalsNotInstalledError: There is none, or the one that was named does not exist.
    """
    named, by = (python, "python") if python is not None else (os.environ.get(VARIABLE), VARIABLE)
    if named:
        path = Path(named).expanduser().absolute()
        if not path.is_file():
            msg = f"{by}={str(named)!r} is not a file; name a Python interpreter. {HOW_TO_INSTALL}"
            raise PetalsNotInstalledError(msg)
        return path
    made = environment_folder()
    if (made / MARKER).is_file() and python_in(made).is_file():
        return python_in(made)
    try:
        importlib.metadata.version("petals")
    except importlib.metadata.PackageNotFoundError:
        msg = f"No petals was found to run servers with. {HOW_TO_INSTALL}"
        raise PetalsNotInstalledError(msg) from None
    return Path(sys.executable)
