"""The files of the tiny model's folder: configuration, tokenizer, weights, model card."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from tiny_model.byte_level import byte_characters
from tiny_model.data.styles import END_OF_TEXT, SPECIAL_TOKENS, TURN_END, TURN_START
from tiny_model.training.pieces import PIECES

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

END_OF_TEXT_ID, TURN_START_ID, TURN_END_ID = (256 + offset for offset in range(3))
POSITIONS = 4096

# ChatML; tools are described at the end of the system message, a call is written as Hermes and Qwen do.
CHAT_TEMPLATE = """{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if tools -%}
{{ '<|im_start|>system\n' + (messages[0].content + '\n\n' if has_system else '') + '# Tools' }}
{%- for tool in tools -%}
{{ '\n' }}{{ tool.function | tojson }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endif -%}
{%- for message in (messages[1:] if tools and has_system else messages) -%}
{{ '<|im_start|>' + message.role + '\n' + message.content }}
{%- for call in message.tool_calls or [] -%}
{{ '\n' if message.content or not loop.first else '' }}{{ '<tool_call>\n{"name": ' }}
{{- call.function.name | tojson }}{{ ', "arguments": ' }}{{ call.function.arguments | tojson }}{{ '}\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}"""


def build_config() -> LlamaConfig:
    """Return the architecture: four layers, so that a swarm can split it in 2 or 4 servers."""
    return LlamaConfig(
        vocab_size=256 + len(SPECIAL_TOKENS) + len(PIECES),
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=4,
        num_attention_heads=5,
        num_key_value_heads=5,
        max_position_embeddings=POSITIONS,
        initializer_range=0.05,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,  # every client then loads the head in the same way
        bos_token_id=None,
        eos_token_id=TURN_END_ID,
        pad_token_id=END_OF_TEXT_ID,
        torch_dtype="float32",
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer: ids 0-255 are single bytes, 256-258 the special tokens, then come the pieces.

    A text becomes the fewest possible tokens: it is a Unigram model in which each token costs the same, and among equal
    ways the one with the longest token wins. BPE would need a token for every merge that leads to a piece.
    """
    readable = byte_characters()
    vocabulary = [(readable[byte], -1.0) for byte in range(256)]
    vocabulary += [(token, -1e6) for token in SPECIAL_TOKENS]  # never as ordinary text
    vocabulary += [("".join(readable[byte] for byte in piece), 1e-4 * len(piece) ** 2 - 1) for piece in PIECES]
    tokenizer = Tokenizer(models.Unigram(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    for token in SPECIAL_TOKENS:
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"eos_token": TURN_END, "pad_token": END_OF_TEXT}
    flags = {**dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False), "special": True}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "added_tokens_decoder": {
                str(256 + offset): {"content": token, **flags} for offset, token in enumerate(SPECIAL_TOKENS)
            },
            "additional_special_tokens": [TURN_START],
            "bos_token": None,
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": POSITIONS,
            "padding_side": "left",
            "tokenizer_class": "PreTrainedTokenizerFast",
            **named,
        },
    )
    _write_json(folder / "special_tokens_map.json", {"additional_special_tokens": [TURN_START], **named})


def load_tokenizer(folder: Path | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of `folder`, or a new one."""
    if folder:
        return AutoTokenizer.from_pretrained(str(folder))
    with tempfile.TemporaryDirectory() as new:
        save_tokenizer(Path(new))
        return AutoTokenizer.from_pretrained(new)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write weights and configuration without names of a library version or a machine."""
    config: dict[str, Any] = model.config.to_diff_dict()
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    config |= {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": None,
        "num_key_value_heads": 5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    }
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {"eos_token_id": [TURN_END_ID, END_OF_TEXT_ID], "pad_token_id": END_OF_TEXT_ID},
    )
    weights = {
        name: tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.endswith("inv_freq")  # computed when a model is built
    }
    file = folder / "model.safetensors"
    save_file(weights, str(file), metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors lets only the owner read it, and a wheel would keep that


def folder_bytes(folder: Path) -> int:
    """Return the size of the folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
