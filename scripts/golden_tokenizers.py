"""Writes what transformers 4.34 makes of small tokenizers of all kinds, for the tests of tokenizers.

Usage, with an interpreter that has transformers 4.34, sentencepiece and torch, as petals' servers do:

    python scripts/golden_tokenizers.py tests/unit_tests/engine/loading/golden

The folder gets the tokenizers, `*.tokenizer.json` and `llama.tokenizer.model`, and for each kind of repository a file
`*.golden.json`: the files that lie beside the tokenizer there, and what transformers' AutoTokenizer gives.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast

CORPUS = [
    "the quick brown fox jumps over the lazy dog. the dog sleeps; the fox runs on and on, over and over again.",
    "Human: Who are you?\nAI: I am a model.\nHuman: Count: 1, 2, 3, 4, 5, 10, 100, 1234567.\nAI: 1 2 3 4 5\n\n",
    "def main():\n    return [x ** 2 for x in range(10) if x % 2 == 0]\n\n\tprint('done')\n",
    "They don't, we've, I'm, it's, you're, he'll; can't WON'T. Is it ? Yes ! No , never .",
    "花の木 花見 日本語 한국어 中文 naïve café Ωμέγα шесть שלום",
]

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n  \n",
    "Hello",
    " Hello",
    "  two  spaces   three    four",
    "the quick brown fox jumps over the lazy dog.",
    "trailing space ",
    "trailing newline\n",
    "\ttab\tand\r\nlines\r\n",
    "Is it ? Yes ! No , never . ' quoted ' do n't I 'm it 's we 've you 're",
    "They don't, we've, I'm, it's, you're, he'll; can't WON'T",
    "1234567 12 3.14159 1,000,000 ٣٤٥ ²½",
    "def f(x):\n    return x ** 2  # comment\n\n\n",
    "花の木 日本語 한국어 中文。、！",  # noqa: RUF001 - awkward on purpose
    "🌸🤖 👩‍🚀 👨‍👩‍👧 🏳️‍🌈 👍🏽 🇫🇷",
    "é e\u0301 ñ ậ \u00a0nbsp\u200bzero\ufeffbom",
    "Ωμέγα шесть שלום مرحبا हिन्दी ไทย",
    "𠮷野家 \U0001f9ff \ufffd \x00 \x01 \x7f",
    "<s>begin</s>",
    "<s> begin </s> end",
    "a<s>b</s>c<unk>d<pad>",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "x <|im_start|> y <|im_end|> z",
    "<|endoftext|>Hello<|endoftext|> Hello",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s><s>[INST] Bye [/INST]",
    "▁under ▁ score __ _",
    "<0x0A><0xE2>",
    '<tool_call>{"name": "f"}</tool_call>',
    "word<mark>word <mark> word",
    "▁<PRE> a ▁<SUF>b ▁<MID>",
    "A" * 40 + " " + "ab" * 30,
    "\u2028\u2029\u0085 x",
]  # fmt: skip

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"  # noqa: RUF001 - as in the model


def byte_level(splitter: Any, special: list[str], normalizer: Any = None, end: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = end or processors.ByteLevel(trim_offsets=False)
    return tokenizer


def split(pattern: str) -> Any:
    parts = [
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    return pre_tokenizers.Sequence(parts)


def llama_files(folder: Path) -> None:
    """Write a model of sentencepiece with the settings of Llama 2, and 4.34's conversion of it."""
    text = folder / "corpus.txt"
    text.write_text("\n".join(CORPUS), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "llama.tokenizer"),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        minloglevel=2,
    )
    for name in ("corpus.txt", "llama.tokenizer.vocab"):
        (folder / name).unlink()
    slow = LlamaTokenizer(str(folder / "llama.tokenizer.model"))
    with tempfile.TemporaryDirectory() as work:
        slow.save_pretrained(work)
        fast = LlamaTokenizerFast.from_pretrained(work)
    fast.backend_tokenizer.save(str(folder / "llama.tokenizer.json"), pretty=False)


def tokenizers(folder: Path) -> None:
    llama_files(folder)
    header = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    begin = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="$A $B", special_tokens=[("<|begin_of_text|>", 0)]
    )
    falcon = [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ]
    made = {
        "llama3": byte_level(split(LLAMA3), header, end=begin),
        "qwen": byte_level(split(QWEN), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC()),
        "falcon": byte_level(pre_tokenizers.Sequence(falcon), [">>TITLE<<", "<|endoftext|>"]),
        "bloom": byte_level(split(BLOOM), ["<unk>", "<s>", "</s>", "<pad>"]),
        "gpt2": byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), ["<|endoftext|>"]),
    }
    for name, tokenizer in made.items():
        tokenizer.save(str(folder / f"{name}.tokenizer.json"), pretty=False)


def token(content: str, **flags: bool) -> dict[str, Any]:
    return {
        "content": content,
        **dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized", "special"), False),
        **flags,
    }


def repositories() -> dict[str, dict[str, Any]]:
    """Return for each kind of repository the tokenizer's file, and the files beside it."""
    ends = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    llama2 = {role: {**token(text, normalized=True), "__type": "AddedToken"} for role, text in ends.items()}
    for each in llama2.values():
        del each["special"]
    beside = {role: {key: each[key] for key in each if key != "__type"} for role, each in llama2.items()}
    chat = {"0": token("<unk>", special=True), "1": token("<s>", special=True), "2": token("</s>", special=True)}
    chat |= {"480": token("<|im_start|>", special=True), "481": token("<|im_end|>", lstrip=True, rstrip=True)}
    chat |= {"482": token("<mark>", normalized=True)}
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    return {
        # as meta-llama/Llama-2-7b-hf has it
        "llama2": {
            "tokenizer": "llama.tokenizer.json",
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {**llama2, "tokenizer_class": "LlamaTokenizer", "legacy": False},
            "special_tokens_map.json": beside,
        },
        # the class comes from the config alone, and its special tokens with it
        "llama_bare": {"tokenizer": "llama.tokenizer.json", "config.json": {"model_type": "llama"}},
        "llama_model_file": {
            "tokenizer": "llama.tokenizer.model",
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {**ends, "tokenizer_class": "LlamaTokenizer", "legacy": True},
        },
        "mistral_chat": {
            "tokenizer": "llama.tokenizer.json",
            "config.json": {"model_type": "mistral"},
            "tokenizer_config.json": {
                **ends,
                "eos_token": "<|im_end|>",
                "additional_special_tokens": ["<|im_start|>"],
                "added_tokens_decoder": chat,
                "add_bos_token": False,
                "add_eos_token": True,
                "clean_up_tokenization_spaces": True,
                "tokenizer_class": "LlamaTokenizerFast",
            },
            "special_tokens_map.json": {"eos_token": "</s>"},
        },
        "codellama": {
            "tokenizer": "llama.tokenizer.json",
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {**ends, "tokenizer_class": "CodeLlamaTokenizer"},
        },
        # tokens were added by hand, and kept in the files of before 4.34
        "llama_added_tokens": {
            "tokenizer": "llama.tokenizer.json",
            "config.json": {"model_type": "llama", "tokenizer_class": "LlamaTokenizer"},
            "tokenizer_config.json": {"pad_token": "<pad>", "add_eos_token": True},
            "special_tokens_map.json": {
                **ends,
                "additional_special_tokens": ["<|im_start|>", {"content": "<|im_end|>", "lstrip": True}],
            },
            "added_tokens.json": {"<mark>": 481, "<pad>": 480, "<|im_start|>": 482},
        },
        "llama3": {
            "tokenizer": "llama3.tokenizer.json",
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {
                "bos_token": "<|begin_of_text|>",
                "eos_token": "<|eot_id|>",
                "added_tokens_decoder": {
                    "0": token("<|begin_of_text|>", special=True),
                    "4": token("<|eot_id|>", special=True),
                },
                "clean_up_tokenization_spaces": True,
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        },
        # 4.34 does not know Qwen's class, which changes nothing of this
        "qwen": {
            "tokenizer": "qwen.tokenizer.json",
            "config.json": {"model_type": "llama"},
            "tokenizer_config.json": {
                "bos_token": None,
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "unk_token": None,
                "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
                "added_tokens_decoder": {
                    "0": token("<|endoftext|>", special=True),
                    "1": token("<|im_start|>", special=True),
                    "2": token("<|im_end|>", special=True),
                    "420": token("<tool_call>"),
                    "421": token("</tool_call>"),
                },
                "add_prefix_space": False,
                "clean_up_tokenization_spaces": False,
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
        },
        "falcon": {
            "tokenizer": "falcon.tokenizer.json",
            "config.json": {"model_type": "falcon"},
            "tokenizer_config.json": {
                "eos_token": "<|endoftext|>",
                "add_prefix_space": False,
                "tokenizer_class": "PreTrainedTokenizerFast",
            },
            "special_tokens_map.json": {"additional_special_tokens": [">>TITLE<<"], "eos_token": "<|endoftext|>"},
        },
        "bloom": {
            "tokenizer": "bloom.tokenizer.json",
            "config.json": {"model_type": "bloom"},
            "tokenizer_config.json": {
                **ends,
                "pad_token": "<pad>",
                "padding_side": "left",
                "tokenizer_class": "BloomTokenizerFast",
            },
        },
        "bloom_prefix_space": {
            "tokenizer": "bloom.tokenizer.json",
            "config.json": {"model_type": "bloom"},
            "tokenizer_config.json": {"add_prefix_space": True},
        },
        "gpt2": {
            "tokenizer": "gpt2.tokenizer.json",
            "config.json": {"model_type": "falcon"},
            "tokenizer_config.json": {**end, "tokenizer_class": "GPT2Tokenizer"},
        },
    }


def results(folder: Path) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    texts = []
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        texts.append(
            {
                "text": text,
                "ids": ids,
                "plain_ids": tokenizer(text, add_special_tokens=False).input_ids,
                "decoded": tokenizer.decode(ids),
                "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
                "decoded_as_is": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            }
        )
    return {
        "class": type(tokenizer).__name__,
        "size": len(tokenizer),
        "special_tokens_map": tokenizer.special_tokens_map,
        "all_special_tokens": tokenizer.all_special_tokens,
        "all_special_ids": tokenizer.all_special_ids,
        "added_vocab": tokenizer.get_added_vocab(),
        "special_ids": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "names": tokenizer.convert_ids_to_tokens(list(range(0, len(tokenizer), 7))),
        "texts": texts,
    }


def main() -> None:
    if not transformers.__version__.startswith("4.34."):
        sys.exit(f"transformers 4.34 is needed, not {transformers.__version__}")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizers(folder)
    for name, files in repositories().items():
        with tempfile.TemporaryDirectory() as work:
            source = folder / files["tokenizer"]
            (Path(work) / source.name.partition(".")[2]).write_bytes(source.read_bytes())
            for filename, content in files.items():
                if filename != "tokenizer":
                    (Path(work) / filename).write_text(json.dumps(content), encoding="utf-8")
            golden = {"files": files, "results": results(Path(work))}
        text = json.dumps(golden, ensure_ascii=True, separators=(",", ":"))
        (folder / f"{name}.golden.json").write_text(text + "\n", encoding="utf-8")
        print(f"{name}: {golden['results']['class']}")


if __name__ == "__main__":
    main()
