"""The files of a model, one by one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 2**27  # of a text file; the largest that are known, indexes and configs of tokenizers, have some MB


class Files(Protocol):
    """A model's files, in a folder or on the hub."""

    @property
    def name(self) -> str:
        """Folder or hub name."""

    def file(self, filename: str) -> Path | None:
        """Return the path of a file, downloaded if need be; None if the model has no such file."""


def read_text(files: Files, filename: str) -> str | None:
    """Return the text of a model's file; None if the model has no such file.

    Raises:
        ModelLoadError: It cannot be read, or is no text.
    """
    path = files.file(filename)
    if path is None:
        return None
    try:
        is_huge = path.stat().st_size > _MOST_BYTES
        text = None if is_huge else path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"{filename} of {files.name!r} cannot be read: {error}"
        raise ModelLoadError(msg) from None
    if text is None:
        msg = f"{filename} of {files.name!r} cannot be read: it has more than {_MOST_BYTES} bytes"
        raise ModelLoadError(msg)
    return text


def read_json(files: Files, filename: str) -> dict[str, Any] | None:
    """Return what a JSON file of a model holds; None if the model has no such file.

    Raises:
        ModelLoadError: It cannot be read, or holds no object.
    """
    text = read_text(files, filename)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"{filename} of {files.name!r} is not valid JSON: {error}"
        raise ModelLoadError(msg) from None
    if not isinstance(content, dict):
        msg = f"{filename} of {files.name!r} holds no JSON object"
        raise ModelLoadError(msg)
    return content
