"""The interface of a model in this process, as the engine uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


class CausalModel(Protocol):
    """A causal language model of transformers, or petals' distributed one.

    A `generation_config` attribute is optional.
    """

    @property
    def config(self) -> Any:
        """Its `PretrainedConfig`."""

    @property
    def device(self) -> torch.device:
        """The device that its inputs must be on."""

    def __call__(self, *, input_ids: torch.Tensor, use_cache: bool, **cache: Any) -> Any:
        """Return an output with `logits`, shape (rows, tokens, vocabulary), and the attention cache.

        The cache is the output's `cache`, or its `past_key_values` (transformers before 5.20); the next call gets it
        under the same name.
        """


class DistributedModel(CausalModel, Protocol):
    """Petals' `Distributed...ForCausalLM`: embeddings, norm and head are in this process, the blocks on servers."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Return embeddings, norm and head, by their names in a checkpoint."""


def is_distributed(model: CausalModel) -> TypeGuard[DistributedModel]:
    """Return whether `model` is one of petals' distributed models, not a plain transformers model."""
    return hasattr(getattr(getattr(model, "transformer", None), "h", None), "sequence_manager")
