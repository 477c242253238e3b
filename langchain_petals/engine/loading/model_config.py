"""The config of a model: read from its files, and checked before anything relies on it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals import hub
from langchain_petals.engine.loading.families import family_of
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.engine.model_parts import Family
    from langchain_petals.hub import Files

_MOST_BLOCKS, _MOST_NUMBERS = 10_000, 10_000_000  # far above any model
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def read_config(files: Files) -> tuple[dict[str, Any], Family]:
    """Return what a model's config.json holds, and the model's family.

    Raises:
        ModelLoadError: There is no config.json, or it cannot be read, or a value that is needed has a wrong type or is
            out of range.
        UnsupportedModelError: The model's family is not known.
    """
    config = hub.read_json(files, "config.json")
    if config is None:
        raise hub.missing(files, "config.json")
    family = family_of(config, files.name)
    _check(config, family, files.name)
    return config, family


def read_generation_config(files: Files) -> dict[str, Any]:
    """Return what a model's generation_config.json holds; nothing if it has none.

    Raises:
        ModelLoadError: It cannot be read, or its end tokens are no token ids.
    """
    config = hub.read_json(files, "generation_config.json") or {}
    _check_end_tokens(config, "generation_config.json", files.name)
    return config


def dtype_of(name: str, config: Mapping[str, Any]) -> torch.dtype | None:
    """Return a type by its name.

    Args:
        name: "auto" for the config's type, or "float32", "bfloat16", "float16".
        config: The model's config.

    Returns:
        The type; None for the type of the weights, if the config names none that this process can use.
    """
    if name == "auto":
        name = str(config.get("dtype") or config.get("torch_dtype"))  # transformers 5 writes dtype
    return _TYPES.get(name.removeprefix("torch."))


def blocks_of(config: Mapping[str, Any], family: Family) -> int:
    """Return the number of blocks by a config that has been checked."""
    return next(int(config[name]) for name in family.blocks if name in config)


def _check(config: Mapping[str, Any], family: Family, model: str) -> None:
    _check_whole(config, family.blocks, _MOST_BLOCKS, model)
    _check_whole(config, family.hidden_size, _MOST_NUMBERS, model)
    if config.get("vocab_size") is not None:
        _check_whole(config, ("vocab_size",), _MOST_NUMBERS, model)
    epsilon = config.get(family.epsilon, family.default_epsilon)
    is_number = isinstance(epsilon, (int, float)) and not isinstance(epsilon, bool)
    if not is_number or not math.isfinite(epsilon) or not 0 <= epsilon < 1:
        raise _wrong(model, family.epsilon, epsilon, "a number from 0 to 1")
    tied = config.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        raise _wrong(model, "tie_word_embeddings", tied, "true or false")
    _check_end_tokens(config, "config.json", model)


def _check_whole(config: Mapping[str, Any], names: tuple[str, ...], most: int, model: str) -> None:
    name = next((name for name in names if name in config), names[0])
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _wrong(model, name, value, f"a whole number from 1 to {most}")


def _check_end_tokens(config: Mapping[str, Any], filename: str, model: str) -> None:
    ids = config.get("eos_token_id")
    each = ids if isinstance(ids, list) else [] if ids is None else [ids]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in each):
        raise _wrong(model, "eos_token_id", ids, "a token id or a list of token ids", filename)


def _wrong(model: str, name: str, value: object, right: str, filename: str = "config.json") -> ModelLoadError:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}..."  # noqa: PLR2004 - what fits a line
    return ModelLoadError(f"{filename} of {model!r} says {shown} for {name}, which has to be {right}.")
