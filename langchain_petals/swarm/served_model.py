"""The model that servers hold: where it is, how many blocks it has, and which of them a server takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_petals import hub
from langchain_petals.addresses import original_repository
from langchain_petals.errors import InvalidRequestError, ModelLoadError

if TYPE_CHECKING:
    import os

    from pydantic import SecretStr

BUNDLED_MODEL = str(Path(__file__).with_name("tiny"))
"""Folder of the small model that this package contains."""

_WEIGHTS = (*hub.SAFETENSORS, *hub.PICKLES)
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def require(condition: object, message: str) -> None:
    """Raise an `InvalidRequestError` if a condition does not hold."""
    if not condition:
        raise InvalidRequestError(message)


def resolve_model(model: str | os.PathLike[str]) -> str:
    """Return the absolute path of a model's folder, or its name on the hub.

    Raises:
        InvalidRequestError: It is neither, or the folder holds no model.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        require(
            (path / "config.json").is_file() and any((path / name).is_file() for name in _WEIGHTS),
            f"The folder {str(model)!r} does not hold a model that petals can serve; it needs config.json and one of "
            f"{', '.join(_WEIGHTS)}.",
        )
        return str(path.absolute())
    require(
        isinstance(model, str) and _HUB_NAME.fullmatch(model) and not model.startswith("."),
        f"model={str(model)!r} is neither a folder nor a name on the hub, such as 'bigscience/bloom-560m'.",
    )
    return str(model)


def blocks_and_context(model: str, key: SecretStr | None) -> tuple[int, int | None]:
    """Return the number of the model's blocks, and the number of tokens in its context (None if unlimited).

    Raises:
        ModelLoadError: The config could not be read.
        InvalidRequestError: The config does not have the number of blocks.
    """
    config = hub.read_json(hub.Repository(original_repository(model), key=key).located(), "config.json")
    if config is None:
        msg = f"{model!r} has no config.json, which says how many blocks it has."
        raise ModelLoadError(msg)
    blocks = config.get("num_hidden_layers") or config.get("n_layer")
    if type(blocks) is not int or blocks < 1:
        msg = f"The config of {model!r} does not have the number of blocks (num_hidden_layers or n_layer)."
        raise InvalidRequestError(msg)
    context = config.get("max_position_embeddings")
    return blocks, context if type(context) is int and context > 0 else None


def parse_span(blocks: range | str | tuple[int, int], total: int) -> range:
    """Return a span of a model's blocks.

    Raises:
        InvalidRequestError: The model has no such span.
    """
    try:
        if isinstance(blocks, range):
            span = blocks
        else:
            start, end = blocks.split(":") if isinstance(blocks, str) else blocks
            span = range(int(start), int(end))
    except (TypeError, ValueError):
        span = range(0)
    require(
        span and span.step == 1 and span.start >= 0 and span.stop <= total,
        f"blocks={blocks!r} is not a span of this model's {total} blocks; give range(start, end), (start, end) or "
        f"'start:end' with 0 <= start < end <= {total}.",
    )
    return span


def span_text(blocks: range) -> str:
    """Return a span as petals takes it: "0:12"."""
    return f"{blocks.start}:{blocks.stop}"
