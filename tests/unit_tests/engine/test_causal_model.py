"""Models of transformers fit the Protocol that the engine asks for, and are told from petals' distributed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GPT2Config, GPT2LMHeadModel

from langchain_petals.engine.causal_model import CausalModel, is_distributed

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

MEMBERS = ["__call__", *(name for name in vars(CausalModel) if not name.startswith("_"))]


def test_plain_models_have_all_members(tiny_model: LlamaForCausalLM) -> None:
    assert [name for name in MEMBERS if not hasattr(tiny_model, name)] == []


def test_only_models_with_a_sequence_manager_are_distributed(tiny_model: LlamaForCausalLM) -> None:
    sizes = {"n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 8, "n_positions": 8}
    model = GPT2LMHeadModel(GPT2Config(**sizes))  # has `transformer.h`, too
    assert not is_distributed(tiny_model)
    assert not is_distributed(model)
    model.transformer.h.sequence_manager = None
    assert is_distributed(model)
