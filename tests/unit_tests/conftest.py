"""Fixtures of the unit tests: real small models and tokenizers in this process, and an environment without keys."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from cassettes import CDN, HUB, vcr_settings
from local_hub import LocalHub, point_at
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from langchain_petals import Petals
from langchain_petals.environment import VARIABLES
from langchain_petals.hub import KEY_VARIABLES
from tiny_model.byte_level import byte_characters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TINY = Path(__file__).parents[2] / "langchain_petals" / "swarm" / "tiny"

# Repeatable, so that a failure comes from the change at hand. HYPOTHESIS_PROFILE can be search or brief, too.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=80)
hypothesis.settings.register_profile("brief", derandomize=True, deadline=None, max_examples=8)
hypothesis.settings.register_profile("search", deadline=None, max_examples=3000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

CORPUS = (
    "the quick brown fox jumps over the lazy dog. the dog sleeps; the fox runs on and on, over and over again.",
    "Human: Who are you?\nAI: I am a model.\nHuman: Count: 1, 2, 3, 4, 5, 10, 100.\nAI: 1 2 3 4 5 10 100\n\n",
    "花の木 花の木 花見 日本語 日本語 한국어 한국어 中文 中文 𠮷野家 𠮷野家",
    "🌸🌸 🤖🤖 👩‍🚀👩‍🚀 👨‍👩‍👧 👨‍👩‍👧 🏳️‍🌈 🏳️‍🌈 👍🏽👍🏽 🇫🇷🇫🇷",
    "é é ñ ñ ậ ậ naïve café naïve café Ωμέγα шесть шесть שלום שלום",
    "  two  spaces   three    four\t\ttabs\r\nlines\r\n",
)


# The models are so small that more threads would mostly wait for each other.
if importlib.util.find_spec("torch"):  # see scripts/test_newest_python.sh
    import torch

    torch.set_num_threads(1)


# Warnings that third parties cause; all others are errors.
THIRD_PARTY_WARNINGS = (
    # hivemind 1.1.12 finds its p2pd in a way that Python 3.11 deprecated
    "ignore:path is deprecated. Use files:DeprecationWarning",
    # LangChain's `loads` has been in beta since 2023
    "ignore:The function `loads` is in beta",
)


# Whether an answer ends within its limit depends on weights and random numbers. Tests of this warning use pytest.warns.
RANDOM_WARNING = "ignore:The token limit ended an answer"


def pytest_configure(config: pytest.Config) -> None:
    for line in ("error", *THIRD_PARTY_WARNINGS, RANDOM_WARNING):
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do as with HF_HUB_OFFLINE=1."""
    # before 1.0, huggingface_hub keeps sessions that look at the setting when they are made; this forgets them
    renew = getattr(importlib.import_module("huggingface_hub"), "configure_http_backend", lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        renew()
        yield
    renew()


@pytest.fixture(autouse=True, scope="session")
def _no_keys_and_no_swarm_in_the_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in (*KEY_VARIABLES, *VARIABLES.values()):
            patch.delenv(name, raising=False)
        for name in ("LANGCHAIN_TRACING_V2", "LANGSMITH_TRACING"):
            patch.setenv(name, "false")
        yield


@pytest.fixture(scope="session")
def tiny_model() -> LlamaForCausalLM:
    """Return the bundled model. It is trained again now and then, so no test may depend on its answers."""
    return LlamaForCausalLM.from_pretrained(str(TINY))


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return the bundled tokenizer."""
    return PreTrainedTokenizerFast.from_pretrained(str(TINY))


@pytest.fixture(scope="session")
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes and three special tokens, which makes lengths easy to see."""
    vocabulary = {character: byte for byte, character in byte_characters().items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def endless_tokenizer(tiny_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return the bundled tokenizer without an end token, for a model whose vocabulary has none."""
    return PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer.backend_tokenizer)


def random_llama(seed: int, **config: Any) -> LlamaForCausalLM:
    """Return a small model with random weights that are large enough for confident predictions."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**sizes | {"initializer_range": 0.4} | tokens | config)).eval()


@pytest.fixture(scope="session")
def babbler() -> LlamaForCausalLM:
    """Return a model with random weights, whose predictions are confident and change quickly."""
    return random_llama(seed=20, vocab_size=96, max_position_embeddings=256)


@pytest.fixture(scope="session")
def merging_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE like GPT-2's or BLOOM's: tokens are parts of characters, characters and words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like Llama 2's: words begin with a mark, unknown characters become bytes."""
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Split(Regex("▁"), "merged_with_next")
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    learner.train_from_iterator(CORPUS[:2], trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = dict(learned["vocab"])
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer like XLM-R's or T5's: a unigram model with SentencePiece's marks."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    words = {piece for line in CORPUS[:2] for word in line.split() for piece in (word, f"▁{word}", *word)}
    pieces += sorted(words - set(pieces))
    vocabulary = [(piece, -10.0 + 0.5 * len(piece) if i >= 259 else 0.0) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def random_model(merging_tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a model whose token sequences a tokenizer would not produce."""
    vocabulary, bos = len(merging_tokenizer) + 8, merging_tokenizer.bos_token_id
    return random_llama(seed=8, vocab_size=vocabulary, max_position_embeddings=4096, bos_token_id=bos)


@pytest.fixture
def petals_llm(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Petals]:
    """Return a factory of language models over the bundled model: greedy, and always 12 tokens long."""

    def make(**fields: Any) -> Petals:
        chosen: dict[str, Any] = {
            "client": tiny_model,
            "tokenizer": tiny_tokenizer,
            "temperature": 0,
        } | fields
        if not {"max_new_tokens", "max_tokens", "max_length"} & set(fields):
            chosen["max_new_tokens"] = 12
            chosen["model_kwargs"] = {"min_new_tokens": 12} | fields.get("model_kwargs", {})
        return Petals(**chosen)

    return make


@pytest.fixture(scope="session")
def recorded_hub(record_mode: str) -> Iterator[LocalHub | None]:
    """Return a hub on loopback if its traffic is recorded; see `cassettes`."""
    if record_mode == "none":
        yield None
    else:
        with LocalHub() as hub:
            yield hub


@pytest.fixture(scope="session")
def vcr_config(recorded_hub: LocalHub | None) -> dict[str, Any]:
    """Return VCR's configuration, which drops keys, cookies and ports."""
    return vcr_settings({recorded_hub.url: HUB, recorded_hub.cdn_url: CDN} if recorded_hub else {})


@pytest.fixture
def hub(recorded_hub: LocalHub | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalHub | None:
    """Use the recorded hub, or the one in the cassettes; return the former."""
    point_at(monkeypatch, recorded_hub.url if recorded_hub else HUB, tmp_path)
    if recorded_hub:
        recorded_hub.clear()
    return recorded_hub
