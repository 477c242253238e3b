"""The files of a model, one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path


class Files(Protocol):
    """A model's files, in a folder or on the hub."""

    @property
    def name(self) -> str:
        """Folder or hub name."""

    def file(self, filename: str) -> Path | None:
        """Return the path of a file, downloaded if need be; None if the model has no such file."""


def read_json(files: Files, filename: str) -> dict[str, Any] | None:
    """Return what a JSON file of a model holds; None if the model has no such file.

    Raises:
        ModelLoadError: It cannot be read, or holds no object.
    """
    path = files.file(filename)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{filename} of {files.name!r} cannot be read: {error}"
        raise ModelLoadError(msg) from None
    if not isinstance(content, dict):
        msg = f"{filename} of {files.name!r} holds no JSON object"
        raise ModelLoadError(msg)
    return content
