"""A session on a plain transformers model in this process: for tests, and for a model given as `client`."""

from __future__ import annotations

from typing import Any

import torch


class LocalSession:
    """Feeds a local model, keeping its attention cache.

    Args:
        model: A transformers causal language model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: Any = None
        self._position = 0

    @property
    def position(self) -> int:
        """Tokens of each row that the model has seen."""
        return self._position

    @torch.inference_mode()
    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Feed more tokens; see `Session.extend`."""
        out = self._model(input_ids=ids.to(self._model.device), past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        self._position += ids.shape[1]
        logits: torch.Tensor = out.logits[:, -1]
        return logits.float().cpu()

    def close(self) -> None:
        """Drop the cache."""
        self._cache = None
