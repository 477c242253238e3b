"""Single tensors of a checkpoint: only the files that hold them are fetched and mapped into memory."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from langchain_petals import hub
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_petals.hub import Files

_TYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
_NO_NAMES = frozenset({"", ".", ".."})


class Checkpoint:
    """The weights of a model: safetensors, or pickles if it has no safetensors.

    A pickle can hold code. PyTorch does not run it any more, but a file that cannot hold code is safer, so pickles
    cause a warning.

    Args:
        files: The model's files.

    Raises:
        ModelLoadError: It has no weights, or an index that cannot be read.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._unpickled: dict[str, Mapping[Any, Any]] = {}
        for whole, index in (hub.SAFETENSORS, hub.PICKLES):
            self._whole = whole
            self._places = None if files.file(whole) is not None else self._weight_map(index)
            if self._places is not None or files.file(whole) is not None:
                break
        else:
            raise hub.missing(files, f"{hub.SAFETENSORS[0]} and no {hub.PICKLES[0]}, whole or in parts")
        self._is_pickled = self._whole == hub.PICKLES[0]
        if self._is_pickled:
            warnings.warn(
                f"{files.name!r} has its weights in pickles only, which can hold harmful code. Use it if you trust its "
                "authors; better, ask them for safetensors.",
                stacklevel=2,
            )

    def _weight_map(self, index: str) -> dict[str, str] | None:
        """Return the files of the tensors by an index; None if there is no such index."""
        content = hub.read_json(self._files, index)
        if content is None:
            return None
        places = content.get("weight_map")
        if not isinstance(places, dict):
            msg = f"{index} of {self._files.name!r} has no weight_map"
            raise ModelLoadError(msg)
        for filename in places.values():
            is_name = isinstance(filename, str) and filename not in _NO_NAMES and {"/", "\\"}.isdisjoint(filename)
            if not is_name or not filename.isprintable():  # errors show it; half a character cannot be encoded
                msg = f"{index} of {self._files.name!r} names {filename!r}, which is no file beside it"
                raise ModelLoadError(msg)
        return places

    def read(self, name: str) -> torch.Tensor | None:
        """Return a tensor by its name, mapped into memory if the file allows it; None if there is none.

        Raises:
            ModelLoadError: The file that should hold it is missing or broken, or holds no floating-point numbers.
        """
        filename = self._whole if self._places is None else self._places.get(name)
        if filename is None:
            return None
        path = self._files.file(filename)
        if path is None:
            raise hub.missing(self._files, filename)
        found = self._read_pickle(path, name) if self._is_pickled else self._read_safetensors(path, name)
        if found is not None and found.dtype not in _TYPES:
            kind = str(found.dtype).removeprefix("torch.")
            msg = (
                f"the tensor {name!r} of {self._files.name!r} is of the type {kind}; the part of a model that runs in "
                "this process needs float32, bfloat16 or float16. Take a checkpoint that is not quantized."
            )
            raise ModelLoadError(msg)
        return found

    def _read_safetensors(self, path: Path, name: str) -> torch.Tensor | None:
        try:
            with safe_open(path, framework="pt") as tensors:
                found: torch.Tensor | None = tensors.get_tensor(name) if name in tensors.keys() else None  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise self._broken(path, error) from None
        return found

    def _read_pickle(self, path: Path, name: str) -> torch.Tensor | None:
        if path.name not in self._unpickled:
            self._unpickled[path.name] = self._load_pickle(path)
        found = self._unpickled[path.name].get(name)
        if found is None:
            return None
        # a view of few numbers can claim any size
        is_whole = (
            isinstance(found, torch.Tensor)
            and found.layout == torch.strided
            and found.device.type == "cpu"
            and not found.is_quantized
            and found.untyped_storage().nbytes() >= found.numel() * found.element_size()
        )
        if not is_whole:
            raise self._broken(path, f"{name!r} is no dense tensor")
        tensor: torch.Tensor = found.detach()
        return tensor

    def _load_pickle(self, path: Path) -> Mapping[Any, Any]:
        try:
            # files from before torch 1.6 are no archives, and cannot be mapped
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # noqa: BLE001 - unpickling raises whatever the file makes it raise
            raise self._broken(path, error) from None
        if not isinstance(content, Mapping):
            raise self._broken(path, "it holds no tensors by their names")
        return content

    def _broken(self, path: Path, reason: object) -> ModelLoadError:
        first = (str(reason).strip().splitlines() or [type(reason).__name__])[0]
        return ModelLoadError(f"{path.name!r} of {self._files.name!r} cannot be read: {first}")
