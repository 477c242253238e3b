"""Small models with random weights of each family that the client knows, as checkpoints that all versions read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = _LLAMA | {"num_key_value_heads": 2}
_FALCON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_LLAMA},
    "llama with grouped queries": {"model_type": "llama", **_GROUPED, "rms_norm_eps": 1e-5},
    "mistral": {"model_type": "mistral", **_GROUPED, "head_dim": 8},
    "mixtral": {"model_type": "mixtral", **_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"model_type": "qwen2", **_GROUPED},
    "qwen3": {"model_type": "qwen3", **_GROUPED, "head_dim": 16},
    "bloom": {"model_type": "bloom", "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "falcon-40b": {"model_type": "falcon", **_FALCON, "num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon-rw": {
        "model_type": "falcon",
        **_FALCON,
        "alibi": True,
        "bias": True,
        "multi_query": False,
        "new_decoder_architecture": False,
        "parallel_attn": False,
    },
}
"""Fields of their configs."""


def random_model(fields: dict[str, Any], dtype: torch.dtype = torch.float32, seed: int = 3) -> PreTrainedModel:
    """Return a model whose weights are all random, and large, so that its predictions are confident.

    Args:
        fields: Those of its config.
        dtype: Type of the weights.
        seed: Seed of the weights.
    """
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    kind, others = fields["model_type"], {name: value for name, value in fields.items() if name != "model_type"}
    config = AutoConfig.for_model(kind, **{"vocab_size": 96, "initializer_range": 0.4, **tokens} | others)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).to(dtype)
        for weights in model.parameters():
            if weights.dim() == 1:  # norms and biases begin as ones and zeros, which would hide mistakes
                weights.data += 0.3 * torch.randn_like(weights)
    model.eval()
    return model


def save(model: PreTrainedModel, folder: Path, *, headless: bool = False) -> None:
    """Write a checkpoint; its config has the names of transformers 4 and 5 for what has two.

    Args:
        model: A causal language model.
        folder: Where to write.
        headless: Whether to write the model without its head, as the hub has BLOOM.
    """
    saved: Any = model.base_model if headless else model
    saved.save_pretrained(folder)
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["torch_dtype"] = config["dtype"] = str(model.dtype).removeprefix("torch.")
    theta = config.get("rope_parameters", config).get("rope_theta")
    if theta is not None:
        config["rope_theta"] = theta
    path.write_text(json.dumps(config), encoding="utf-8")
