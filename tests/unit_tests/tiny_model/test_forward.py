"""The fast forward pass that the bundled model is trained with: transformers' own, but for rounding."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import LlamaForCausalLM

from tiny_model.training.folder import build_config
from tiny_model.training.forward import hidden_states

# transformers 4.34 uses names that newer torch versions deprecate
pytestmark = pytest.mark.filterwarnings("ignore")


def gradient_of(model: LlamaForCausalLM, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    functional.cross_entropy(logits, targets).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def test_states_and_gradients_are_those_of_transformers() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(build_config())
    ids = torch.randint(model.config.vocab_size, (71,))
    states = hidden_states(model, ids[:-1])
    expected = model(ids[None, :-1], output_hidden_states=True)

    # bfloat16 keeps eight bits of a number, which makes some 0.4 % in a product
    torch.testing.assert_close(states, expected.hidden_states[-1][0], rtol=0.02, atol=0.05)
    gradient = gradient_of(model, model.lm_head(states), ids[1:])
    right = gradient_of(model, expected.logits[0], ids[1:])
    assert functional.cosine_similarity(gradient, right, dim=0) > 0.999
