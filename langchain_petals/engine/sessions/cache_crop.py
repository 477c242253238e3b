"""Cutting the end off an attention cache of transformers, where that certainly leaves no trace.

transformers has had classes of caches since 4.36, with layers of their own since 4.54. Some models of older versions
give tuples. The cache of a sliding window has lost tokens that it would need again, and a recurrent state cannot be
taken back. So only the caches of plain attention are cut.
"""

from __future__ import annotations

from typing import Any

import torch

_DIMENSIONS = 4  # rows, heads, tokens, width of a head
_CHANGING = frozenset({"dynamic", "longrope", "su"})


def is_croppable(cache: Any, length: int) -> bool:
    """Return whether `cropped` can cut the end off a cache.

    Args:
        cache: What a model returned.
        length: Tokens of each row that the model has seen.
    """
    pairs = _keys_and_values(cache)
    return bool(pairs) and all(_has_length(part, length) for pair in pairs for part in pair)


def depends_on_length(config: Any) -> bool:
    """Return whether a model's rotary embeddings change with the length of the text that it has seen.

    Then a step with tokens that are taken back may differ from one without them.

    Args:
        config: The model's config.
    """
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(scaling, dict):
        return False
    # transformers 5 may have a dictionary for each kind of layers; before 4.43, the name was another
    kinds = [scaling, *(each for each in scaling.values() if isinstance(each, dict))]
    return any(each.get("rope_type", each.get("type")) in _CHANGING for each in kinds)


def cropped(cache: Any, surplus: int) -> Any:
    """Return a cache without its last tokens; it may be the same object.

    Args:
        cache: A cache that `is_croppable`.
        surplus: How many tokens to cut off; at least 1.
    """
    if isinstance(cache, tuple):
        return tuple(tuple(part[:, :, :-surplus] for part in layer) for layer in cache)
    cache.crop(-surplus)
    return cache


def _keys_and_values(cache: Any) -> list[tuple[Any, ...]]:
    """Return the keys and values of each layer; nothing if the cache is of another kind."""
    if isinstance(cache, tuple):
        return [layer if isinstance(layer, tuple) and len(layer) == 2 else (None,) for layer in cache]  # noqa: PLR2004
    if not _is_exactly(cache, "DynamicCache"):  # a subclass may hold more
        return []
    if hasattr(cache, "layers"):
        return [(each.keys, each.values) if _is_exactly(each, "DynamicLayer") else (None,) for each in cache.layers]
    return list(zip(cache.key_cache, cache.value_cache, strict=True))


def _is_exactly(thing: object, name: str) -> bool:
    """Return whether this is transformers' class of that name; transformers itself may not be installed."""
    kind = type(thing)
    return (kind.__module__, kind.__name__) == ("transformers.cache_utils", name)


def _has_length(part: Any, length: int) -> bool:
    """Return whether this is a tensor with tokens in its third dimension, and certainly not in its fourth."""
    if not isinstance(part, torch.Tensor) or part.dim() != _DIMENSIONS:
        return False
    return part.shape[2] == length != part.shape[3]  # some models have them the other way round
