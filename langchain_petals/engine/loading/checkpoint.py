"""Single tensors of a checkpoint: only the files that hold them are fetched and mapped into memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_petals.hub import Files


class Checkpoint:
    """The weights of a model.

    Args:
        files: The model's files.

    Raises:
        ModelLoadError: It has no weights, or an index that cannot be read.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._opened: dict[str, Any] = {}
        for whole, read in (("model.safetensors", self._read_safetensors), ("pytorch_model.bin", self._read_pickle)):
            index = files.file(f"{whole}.index.json")
            if index is not None or files.file(whole) is not None:
                self._whole, self._reader = whole, read
                self._places = None if index is None else self._weight_map(index)
                return
        msg = f"{files.name!r} has no weights: neither model.safetensors nor pytorch_model.bin, whole or in parts"
        raise ModelLoadError(msg)

    def _weight_map(self, index: Path) -> dict[str, str]:
        try:
            places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = f"the index of the weights of {self._files.name!r} cannot be read: {error}"
            raise ModelLoadError(msg) from None
        if not isinstance(places, dict) or not all(isinstance(each, str) for each in places.values()):
            msg = f"the index of the weights of {self._files.name!r} names no files"
            raise ModelLoadError(msg)
        return places

    def read(self, name: str) -> torch.Tensor | None:
        """Return a tensor by its name; None if there is none.

        Raises:
            ModelLoadError: The file that should hold it is missing or broken.
        """
        filename = self._whole if self._places is None else self._places.get(name)
        if filename is None:
            return None
        if "/" in filename or "\\" in filename:
            msg = f"the index of the weights of {self._files.name!r} names {filename!r}, which is no file of its own"
            raise ModelLoadError(msg)
        return self._reader(filename, name)

    def _path(self, filename: str) -> Path:
        path = self._files.file(filename)
        if path is None:
            msg = f"{self._files.name!r} has no file {filename!r}, which should hold weights"
            raise ModelLoadError(msg)
        return path

    def _read_safetensors(self, filename: str, name: str) -> torch.Tensor | None:
        try:
            with safe_open(self._path(filename), framework="pt") as tensors:
                found: torch.Tensor | None = tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            msg = f"{filename!r} of {self._files.name!r} cannot be read: {error}"
            raise ModelLoadError(msg) from None
        return found

    def _read_pickle(self, filename: str, name: str) -> torch.Tensor | None:
        if filename not in self._opened:
            try:
                self._opened[filename] = torch.load(
                    self._path(filename), map_location="cpu", weights_only=True, mmap=True
                )
            except Exception as error:  # noqa: BLE001 - unpickling raises whatever the file makes it raise
                msg = f"{filename!r} of {self._files.name!r} cannot be read: {error}"
                raise ModelLoadError(msg) from None
        found = self._opened[filename].get(name)
        return found if isinstance(found, torch.Tensor) else None
