"""The model families that this client knows: what it runs of them, and under which names their checkpoints keep it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_petals.engine.model_parts import Family
from langchain_petals.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


_LLAMA = Family(
    "embed_tokens",
    "norm",
    ("model.", ""),
    is_rms=True,
    epsilon="rms_norm_eps",
    default_epsilon=1e-6,
    is_tied=False,
)

FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "mixtral": replace(_LLAMA, default_epsilon=1e-5),
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "bloom": Family("word_embeddings", "ln_f", ("transformer.", ""), embeddings_norm="word_embeddings_layernorm"),
    "falcon": Family("word_embeddings", "ln_f", ("transformer.", "")),
}
"""Families by `model_type` of their configs."""


def family_of(config: Mapping[str, Any], model: str) -> Family:
    """Return the family of a model.

    Args:
        config: What its config.json holds.
        model: Its name, for the error.

    Raises:
        UnsupportedModelError: It is none of `FAMILIES`.
    """
    kind = config.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None:
        msg = (
            f"{model!r} cannot be used: its family {kind!r} is none of {', '.join(sorted(FAMILIES))}. Choose a model "
            "of these families."
        )
        raise UnsupportedModelError(msg)
    return family


def hub_prefix(model: str, kind: str) -> str:
    """Return the name under which petals' servers announce the blocks of a model of the hub.

    Args:
        model: Its name on the hub.
        kind: `model_type` of its config.
    """
    own = model.rpartition("/")[2]
    if kind == "bloom":
        name = f"{model}-petals"
    elif kind == "mixtral":
        name = model
    elif kind == "falcon":
        name = own
    else:
        name = own if own.replace(".", "-").endswith("-hf") else f"{own}-hf"
    return name.replace(".", "-")
