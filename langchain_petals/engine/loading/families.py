"""The model families that this client knows: what it runs of them, and under which names their checkpoints keep it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_petals.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Family:
    """What a family has before its first block and after its last one.

    Attributes:
        embeddings: Name of the table of embeddings.
        norm: Name of the last norm, without `.weight`.
        prefixes: What the names in a checkpoint may begin with.
        embeddings_norm: Name of a norm right after the embeddings; None for none.
        is_rms: Whether the last norm is a root mean square, and not a LayerNorm.
        epsilon: The config's name for what keeps a norm from dividing by zero.
        default_epsilon: Its value where the config does not say.
        is_tied: Whether the head is the table of embeddings where the config does not say.
        blocks: The config's names for the number of blocks.
        hidden_size: The config's names for the width of hidden states.
    """

    embeddings: str
    norm: str
    prefixes: tuple[str, ...]
    embeddings_norm: str | None = None
    is_rms: bool = False
    epsilon: str = "layer_norm_epsilon"
    default_epsilon: float = 1e-5
    is_tied: bool = True
    blocks: tuple[str, ...] = ("num_hidden_layers", "n_layer")
    hidden_size: tuple[str, ...] = ("hidden_size", "n_embed")


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
