"""A session on a model in this process gives the logits that the model gives for all tokens at once."""

from __future__ import annotations

from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from random_families import FAMILIES, random_model
from transformers import DynamicCache

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
        logits = session.extend(chunk)[:, -1]
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
    logits = session.extend(IDS[:, 3:], torch.tensor(order))[:, -1]
    rows = torch.cat([IDS[order, :3], IDS[:, 3:]], dim=1)
    with torch.inference_mode():
        whole = babbler(rows).logits[:, -1]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert session.ids == rows[0].tolist()


# ---- several positions, and going back


class StatefulModel(TupleModel):
    """A model whose cache is something that transformers does not know."""

    def __call__(self, **inputs: Any) -> Any:
        out = super().__call__(**inputs)
        return SimpleNamespace(logits=out.logits, past_key_values=RecurrentState(out.past_key_values))


class RecurrentState(tuple[torch.Tensor]):
    """A cache of another class."""

    __slots__ = ()


class LegacyModel(TupleModel):
    """A model whose caches are tuples of keys and values, as in transformers before 4.45."""

    def __call__(self, *, input_ids: torch.Tensor, use_cache: bool, past_key_values: Any = None) -> Any:
        assert use_cache
        cache = DynamicCache()
        for number, (keys, values) in enumerate(past_key_values or ()):
            cache.update(self._turned(keys), self._turned(values), number)
        name = "cache" if "cache" in signature(self._model.forward).parameters else "past_key_values"
        out = self._model(input_ids=input_ids, use_cache=True, **{name: cache})
        pairs = [(layer.keys, layer.values) for layer in cache.layers] if hasattr(cache, "layers") else list(cache)
        layers = tuple((self._turned(keys), self._turned(values)) for keys, values in pairs)
        return SimpleNamespace(logits=out.logits, past_key_values=layers)

    def _turned(self, part: torch.Tensor) -> torch.Tensor:
        return part


class TurnedModel(LegacyModel):
    """The same, but the last two dimensions are the other way round."""

    def _turned(self, part: torch.Tensor) -> torch.Tensor:
        return part.transpose(2, 3)


@pytest.mark.parametrize("last", range(1, 4))
def test_logits_are_those_of_the_last_positions(babbler: LlamaForCausalLM, last: int) -> None:
    session = LocalSession(babbler)
    session.extend(IDS[:, :2])
    logits = session.extend(IDS[:, 2:], last=last)
    with torch.inference_mode():
        whole = babbler(IDS).logits[:, -last:]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapt", [lambda model: model, LegacyModel], ids=["class", "tuples of keys and values"])
@pytest.mark.parametrize("kept", range(1, 6))
def test_what_was_rolled_back_leaves_no_trace(
    babbler: LlamaForCausalLM, adapt: Callable[[LlamaForCausalLM], Any], kept: int
) -> None:
    session, more = LocalSession(adapt(babbler)), torch.tensor([[13, 14], [15, 16]])
    could = [session.can_roll_back]  # what its cache will be is not known yet
    session.extend(IDS[:, :2])
    could.append(session.can_roll_back)
    session.extend(IDS[:, 2:], last=3)
    session.roll_back(kept)
    could.append(session.can_roll_back)
    assert could == [False, True, True]
    assert session.ids == IDS[0, :kept].tolist()
    rows = torch.cat([IDS[:, :kept], more], dim=1)
    with torch.inference_mode():
        whole = babbler(rows).logits[:, -1]
    torch.testing.assert_close(session.extend(more)[:, -1], whole, rtol=1e-4, atol=1e-4)
    assert session.ids == rows[0].tolist()


@pytest.mark.parametrize("adapt", [TupleModel, PlainTupleModel, StatefulModel, TurnedModel])
@pytest.mark.parametrize("length", range(1, 20))
def test_only_a_cache_that_certainly_can_be_cut_is_cut(
    babbler: LlamaForCausalLM, adapt: Callable[[LlamaForCausalLM], Any], length: int
) -> None:
    session = LocalSession(adapt(babbler))
    session.extend(torch.arange(length)[None])
    assert not session.can_roll_back


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, True),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, True),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, False),
    ],
    ids=["plain", "scaled", "scaled by the length of the text"],
)
def test_positions_that_depend_on_the_length_are_not_rolled_back(config: dict[str, Any], *, expected: bool) -> None:
    session = LocalSession(random_model(FAMILIES["llama"] | config))
    session.extend(IDS)
    assert session.can_roll_back is expected


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_goes_on_from_where_it_was_rolled_back_to(name: str) -> None:
    model = random_model(FAMILIES[name])
    session = LocalSession(model)
    session.extend(IDS)
    if session.can_roll_back:
        session.roll_back(3)
        logits = session.extend(IDS[:, :1])
        with torch.inference_mode():
            whole = model(torch.cat([IDS[:, :3], IDS[:, :1]], dim=1)).logits[:, -1:]
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    assert session.can_roll_back or name == "mistral"  # it has a sliding window


@pytest.mark.parametrize("tokens", [2, 4, 9])
def test_a_sliding_window_is_rolled_back_only_where_that_is_exact(tokens: int) -> None:
    model = random_model(FAMILIES["mistral"] | {"sliding_window": 4})
    session, ids = LocalSession(model), torch.arange(1, tokens + 1)[None]
    session.extend(ids)
    if session.can_roll_back:
        session.roll_back(tokens - 1)
        logits = session.extend(ids[:, :1])
        with torch.inference_mode():
            whole = model(torch.cat([ids[:, :-1], ids[:, :1]], dim=1)).logits[:, -1:]
        torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)


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
