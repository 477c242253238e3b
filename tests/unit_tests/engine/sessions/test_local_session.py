"""A session on a model in this process gives the logits that the model gives for all tokens at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from langchain_petals.engine.sessions.local_session import LocalSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import LlamaForCausalLM

IDS = torch.tensor([[5, 11, 42, 7, 9], [6, 12, 43, 8, 10]])


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("cuts", [[], [1], [4], [1, 2, 3, 4]])
def test_logits_do_not_depend_on_how_the_tokens_come(babbler: LlamaForCausalLM, rows: int, cuts: Sequence[int]) -> None:
    ids = IDS[:rows]
    session = LocalSession(babbler)
    for chunk in torch.tensor_split(ids, list(cuts), dim=1):
        logits = session.extend(chunk)
    with torch.inference_mode():
        whole = babbler(ids).logits[:, -1]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert (session.position, session.ids) == (5, ids[0].tolist())


class TupleModel:
    """A model whose caches are tuples, which it reorders itself, as in transformers before 4.36."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.config, self.device, self._model = model.config, model.device, model

    def __call__(self, *, input_ids: torch.Tensor, use_cache: bool, past_key_values: Any = None) -> Any:
        assert use_cache
        seen = input_ids if past_key_values is None else torch.cat([past_key_values[0], input_ids], dim=1)
        return SimpleNamespace(logits=self._model(seen, use_cache=False).logits, past_key_values=(seen,))

    def _reorder_cache(self, cache: tuple[torch.Tensor], order: torch.Tensor) -> tuple[torch.Tensor]:
        return (cache[0][order],)


class PlainTupleModel(TupleModel):
    """A model whose caches are tuples of layers, and which cannot reorder them, as Llama's of transformers 4.45."""

    def __call__(self, *, input_ids: torch.Tensor, use_cache: bool, past_key_values: Any = None) -> Any:
        out = super().__call__(
            input_ids=input_ids, use_cache=use_cache, past_key_values=past_key_values and past_key_values[0]
        )
        return SimpleNamespace(logits=out.logits, past_key_values=(out.past_key_values,))

    def _reorder_cache(self, cache: Any, order: torch.Tensor) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "adapt", [lambda model: model, TupleModel, PlainTupleModel], ids=["class", "tuple", "tuple of layers"]
)
@pytest.mark.parametrize("order", [[0, 1], [1, 0], [1, 1]], ids=str)
def test_each_row_continues_the_one_that_the_order_names(
    babbler: LlamaForCausalLM, adapt: Callable[[LlamaForCausalLM], Any], order: list[int]
) -> None:
    session = LocalSession(adapt(babbler))
    session.extend(IDS[:, :3])
    logits = session.extend(IDS[:, 3:], torch.tensor(order))
    rows = torch.cat([IDS[order, :3], IDS[:, 3:]], dim=1)
    with torch.inference_mode():
        whole = babbler(rows).logits[:, -1]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert session.ids == rows[0].tolist()


def test_local_session_reserves_only_what_it_holds(babbler: LlamaForCausalLM) -> None:
    session = LocalSession(babbler)
    assert (session.position, session.ids, session.reserved) == (0, [], 0)
    session.extend(IDS[:1])
    session.resume(5, 10**9)
    assert session.reserved == 5
    assert session.max_length > 10**9


def test_close_drops_the_cache(babbler: LlamaForCausalLM) -> None:
    session = LocalSession(babbler)
    session.extend(IDS)
    session.close()
    session.close()
    assert not session._cache
