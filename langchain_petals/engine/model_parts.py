"""The part of a model that runs in this process: embeddings before the first block, last norm and head after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from langchain_petals.engine.head import Head
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    _Read = Callable[[str], torch.Tensor | None]
    _Weights = tuple[torch.Tensor, torch.Tensor | None]


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


class ModelParts:
    """Embeddings, last norm and head.

    Args:
        config: What config.json holds.
        family: Where the family keeps these parts.
        read: Returns a tensor of the checkpoint by its name; None if there is none.
        dtype: Type of the parts; None for that of the checkpoint's embeddings.
        device: Where they live.

    Raises:
        ModelLoadError: A tensor is missing, or has another shape than the config says.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        family: Family,
        read: _Read,
        *,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.config, self._family = config, family
        self._dtype, self._device = dtype, device
        self.blocks = _whole_number(config, family.blocks)
        self.hidden_size = _whole_number(config, family.hidden_size)
        self._epsilon = float(config.get(family.epsilon, family.default_epsilon))
        self._embeddings = self._tensor(read, family.embeddings + ".weight", 2)
        self._dtype = dtype or self._embeddings.dtype  # a checkpoint may have norms of another type
        self._norm = self._weights(read, family.norm)
        self._embeddings_norm = None if family.embeddings_norm is None else self._weights(read, family.embeddings_norm)
        tied = config.get("tie_word_embeddings", family.is_tied)
        self._head = Head(self._embeddings if tied else self._tensor(read, "lm_head.weight", 2))
        self._check_rows()

    @property
    def vocabulary_size(self) -> int:
        """Number of logits."""
        return self._head.weights.shape[0]

    def _check_rows(self) -> None:
        least = self.config.get("vocab_size")
        rows = min(self._embeddings.shape[0], self.vocabulary_size)
        if rows < (least if isinstance(least, int) else 1):
            msg = f"the checkpoint has embeddings or a head of {rows} tokens, the config a vocabulary of {least}"
            raise ModelLoadError(msg)

    def _weights(self, read: _Read, name: str) -> _Weights:
        bias = None if self._family.is_rms else self._tensor(read, name + ".bias", 1)
        return self._tensor(read, name + ".weight", 1), bias

    def _tensor(self, read: _Read, name: str, dimensions: int) -> torch.Tensor:
        names = (name,) if name.startswith("lm_head") else tuple(prefix + name for prefix in self._family.prefixes)
        found = next((tensor for tensor in map(read, names) if tensor is not None), None)
        if found is None:
            msg = f"the checkpoint has no tensor {names[0]!r}; its files are incomplete, or of another kind of model"
            raise ModelLoadError(msg)
        if found.dim() != dimensions or found.shape[-1] != self.hidden_size or not found.is_floating_point():
            shape = f"({self.hidden_size},)" if dimensions == 1 else f"(tokens, {self.hidden_size})"
            msg = (
                f"the checkpoint's tensor {names[0]!r} has shape {tuple(found.shape)} and {found.dtype}; by the "
                f"config, it should have shape {shape} and floating-point numbers"
            )
            raise ModelLoadError(msg)
        return found.to(device=self._device, dtype=self._dtype or found.dtype)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return hidden states for the first block.

        Args:
            ids: Token ids, shape (rows, tokens).

        Returns:
            Shape (rows, tokens, hidden size).

        Raises:
            ModelLoadError: The tokenizer has given an id that the model has no embedding for.
        """
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < self._embeddings.shape[0]:
            msg = (
                f"the tokenizer gives token ids up to {int(ids.max())}, but the model has embeddings for "
                f"{self._embeddings.shape[0]} tokens. Take the tokenizer that belongs to the model."
            )
            raise ModelLoadError(msg)
        hidden = functional.embedding(ids.to(self._device), self._embeddings)
        return hidden if self._embeddings_norm is None else self._layer_norm(hidden, *self._embeddings_norm)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits for the next tokens.

        Args:
            hidden: Hidden states after the last block, shape (rows, hidden size), or (rows, positions, hidden size).

        Returns:
            Shape (rows, vocabulary), or (rows, positions, vocabulary), float32, on the CPU.
        """
        weight, bias = self._norm
        hidden = self._rms_norm(hidden, weight) if bias is None else self._layer_norm(hidden, weight, bias)
        logits = self._head.logits(hidden.flatten(0, -2))
        return logits.reshape(*hidden.shape[:-1], self.vocabulary_size)

    def _layer_norm(self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return functional.layer_norm(hidden, hidden.shape[-1:], weight, bias, self._epsilon)

    def _rms_norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """See Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019); in float32, as transformers does."""
        wide = hidden.float()
        return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._epsilon)).to(hidden.dtype)


def _whole_number(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    value = next((config[name] for name in names if name in config), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        msg = f"config.json says {value!r} for {names[0]}, which has to be a whole number above 0"
        raise ModelLoadError(msg)
    return value
