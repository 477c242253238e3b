"""A session on a plain transformers model in this process, which a user gave as `client`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.sessions.session import Session

if TYPE_CHECKING:
    from langchain_petals.engine.causal_model import CausalModel


class LocalSession(Session):
    """Feeds a model in this process, and keeps its attention cache."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__(sys.maxsize)
        self._model = model
        self._cache: Any = None

    @property
    def reserved(self) -> int:
        """Tokens in its attention cache."""
        return self.position

    @torch.inference_mode()
    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """Feed more tokens; see `Session.extend`."""
        if order is not None and self._cache is not None:
            self._cache = self._reordered(order.to(self._model.device))
        out = self._model(input_ids=ids.to(self._model.device), past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        self._seen.add(ids, order)
        logits: torch.Tensor = out.logits[:, -1]
        return logits.float().cpu()

    def _reordered(self, order: torch.Tensor) -> Any:
        """Return the cache with its rows in another order: newer caches can do that, older ones leave it to the model.

        transformers has had classes of caches since 4.36; before, and for some models after, a cache is a tuple, and
        the model has `_reorder_cache`.
        """
        if hasattr(self._cache, "reorder_cache"):
            self._cache.reorder_cache(order)
            return self._cache
        return self._model._reorder_cache(self._cache, order)  # noqa: SLF001 - `generate` itself calls it

    def resume(self, position: int, needed: int) -> None:
        """Do nothing: the session can neither roll back nor run out of room."""

    def close(self) -> None:
        """Drop the cache."""
        self._cache = None
