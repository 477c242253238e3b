"""BLOOM and Falcon on a swarm give the tokens of transformers; the bundled model is a Llama, and tested elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, FalconConfig

from langchain_petals import Petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PretrainedConfig

FAMILIES: dict[str, PretrainedConfig] = {
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=2),
    "falcon": FalconConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_the_family_equals_transformers(
    family: str, swarm: LocalSwarm, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / f"random-{family}"
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    config = FAMILIES[family]
    config.update({"vocab_size": len(tokenizer), "initializer_range": 0.4, "eos_token_id": tokenizer.eos_token_id})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(config)
    saved = model.transformer if family == "bloom" else model  # the hub has BLOOM without its head
    saved.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    ids = tokenizer("Who are you?", return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model.eval().generate(ids, max_new_tokens=24, do_sample=False)
    wanted = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    with LocalSwarm(folder, initial_peers=swarm.initial_peers) as family_swarm:
        assert Petals(**family_swarm.connection, temperature=0, max_new_tokens=24).invoke("Who are you?") == wanted
