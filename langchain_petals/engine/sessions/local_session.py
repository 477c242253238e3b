"""A session on a plain transformers model in this process, which a user gave as `client`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.sessions.cache_crop import cropped, depends_on_length, is_croppable
from langchain_petals.engine.sessions.session import Session

if TYPE_CHECKING:
    from langchain_petals.engine.causal_model import CausalModel
    from langchain_petals.engine.step_costs import StepCosts


class LocalSession(Session):
    """Feeds a model in this process, and keeps its attention cache.

    Args:
        model: The model.
        step_costs: Measures its steps; see `Session`.
    """

    def __init__(self, model: CausalModel, step_costs: StepCosts | None = None) -> None:
        super().__init__(sys.maxsize, step_costs)
        self._model = model
        self._cache: dict[str, Any] = {}

    @property
    def reserved(self) -> int:
        """Tokens in its attention cache."""
        return self.position

    @property
    def can_roll_back(self) -> bool:
        """Whether the model's attention cache can be cut; only of known classes is it certain that nothing is left."""
        is_certain = all(is_croppable(cache, self.position) for cache in self._cache.values())
        return bool(self._cache) and is_certain and not depends_on_length(self._model.config)

    @torch.inference_mode()
    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        """Feed more tokens; see `Session.extend`."""
        cache = self._cache if order is None else self._reordered(order.to(self._model.device))
        with self.step_costs.measure(*ids.shape):
            out = self._model(input_ids=ids.to(self._model.device), use_cache=True, **cache)
        # transformers 5 has renamed it; a model takes its cache under the name under which it returns it
        name = "cache" if getattr(out, "cache", None) is not None else "past_key_values"
        self._cache = {name: getattr(out, name)}
        self._seen.add(ids, order)
        logits: torch.Tensor = out.logits[:, -last:]
        return logits.float().cpu()

    def roll_back(self, position: int) -> None:
        """Forget the tokens from `position` on; see `Session.roll_back`."""
        surplus = self.position - position
        if surplus > 0:
            self._cache = {name: cropped(cache, surplus) for name, cache in self._cache.items()}
            self._seen.cut(position)

    def _reordered(self, order: torch.Tensor) -> dict[str, Any]:
        """Return the cache with its rows in another order.

        transformers has had classes of caches since 4.36. Before, and for some models after, a cache is a tuple, and
        the model has a function that reorders it. Between, some models give tuples and lack the function.
        """
        model: Any = self._model
        for name, cache in self._cache.items():
            if not hasattr(cache, "reorder_cache"):
                try:
                    return {name: model._reorder_cache(cache, order)}  # noqa: SLF001 - `generate` calls it, too
                except NotImplementedError:
                    return {name: tuple(tuple(part.index_select(0, order) for part in layer) for layer in cache)}
            cache.reorder_cache(order)
        return self._cache

    def resume(self, position: int, needed: int) -> None:  # noqa: ARG002 - it cannot run out of room
        """Prepare the idle session for another request; see `Session.resume`."""
        self.roll_back(position)

    def close(self) -> None:
        """Drop the cache."""
        self._cache = {}
