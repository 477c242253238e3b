"""A broken folder, config, index, tokenizer or address gives one error of this package, which names what is broken."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from langchain_petals import Petals
from langchain_petals.engine.loading.families import family_of
from langchain_petals.engine.model_parts import ModelParts
from langchain_petals.errors import (
    InvalidRequestError,
    ModelLoadError,
    PetalsError,
    SwarmUnreachableError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parents[4] / "langchain_petals" / "swarm" / "tiny"
PEER_ID = "12D3KooWQGTqmM7NKjV6ggU1ZCap8zWiyKR89RViDXiqehSiCpY5"
NOBODY = f"/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}"
DEEP = "[" * 50_000 + "]" * 50_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the bundled model."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def error_of(folder: Path | str, **fields: Any) -> PetalsError:
    """Return the error of a model's constructor or first use; each other than a PetalsError fails the test."""
    with pytest.raises(PetalsError) as caught:
        Petals(**{"model": str(folder), "initial_peers": [NOBODY]} | fields).invoke("Hello")
    assert str(caught.value)
    return caught.value


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    """Return a change of values in a JSON file; ... removes one."""

    def change(folder: Path) -> None:
        path = folder / name
        content = {key: value for key, value in (json.loads(path.read_text()) | values).items() if value is not ...}
        path.write_text(json.dumps(content))

    return change


def written(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Return a change of the weights."""

    def change_file(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")

    return change_file


def cut_off(name: str, length: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def index(content: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return write


def tokenizer(**values: Any) -> Callable[[Path], None]:
    return changed("tokenizer.json", **values)


class Harm:
    """Would end the process when it is unpickled."""

    def __reduce__(self) -> Any:
        return exit, (3,)


def harmful_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": Harm()}, folder / "pytorch_model.bin")


def plain_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm()))


EMBEDDINGS, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
WORDS = {"type": "WordLevel", "vocab": {f"w{n}": n for n in range(5_000)}, "unk_token": "w0"}

BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    # the config
    "no config": (removed("config.json"), "has no config.json"),
    "an empty config": (written("config.json", ""), "config.json of .* is not valid JSON"),
    "a config cut off": (cut_off("config.json", 100), "config.json of .* is not valid JSON"),
    "a config of a list": (written("config.json", "[]"), "config.json of .* holds no JSON object"),
    "a config of bytes": (written("config.json", b"\xff\xfe\x00"), "config.json of .* cannot be read"),
    "a deep config": (written("config.json", DEEP), "config.json of .* is not valid JSON"),
    "a config that is a folder": (
        lambda folder: [(folder / "config.json").unlink(), (folder / "config.json").mkdir()],
        "has no config.json",
    ),
    "no family": (changed("config.json", model_type=...), "its family None"),
    "a family of a list": (changed("config.json", model_type=["llama"]), "its family"),
    "a family that nobody knows": (changed("config.json", model_type="gpt2"), "its family 'gpt2'"),
    "no blocks": (changed("config.json", num_hidden_layers=...), "None for num_hidden_layers"),
    "blocks of a text": (changed("config.json", num_hidden_layers="four"), "'four' for num_hidden_layers"),
    "zero blocks": (changed("config.json", num_hidden_layers=0), "0 for num_hidden_layers"),
    "negative blocks": (changed("config.json", num_hidden_layers=-4), "-4 for num_hidden_layers"),
    "half blocks": (changed("config.json", num_hidden_layers=4.5), "4.5 for num_hidden_layers"),
    "true blocks": (changed("config.json", num_hidden_layers=True), "True for num_hidden_layers"),
    "countless blocks": (changed("config.json", num_hidden_layers=10**12), "10+ for num_hidden_layers"),
    "a number of 10,000 digits": (written("config.json", '{"hidden_size": %s}' % ("9" * 10_000)), "not valid JSON"),
    "no width": (changed("config.json", hidden_size=...), "None for hidden_size"),
    "another width": (changed("config.json", hidden_size=161), r"should have shape \(tokens, 161\)"),
    "a huge width": (changed("config.json", hidden_size=10**9), "10+ for hidden_size"),
    "an endless width": (changed("config.json", hidden_size=float("inf")), "inf for hidden_size"),
    "epsilon of a text": (changed("config.json", rms_norm_eps="small"), "'small' for rms_norm_eps"),
    "epsilon that is no number": (changed("config.json", rms_norm_eps=float("nan")), "nan for rms_norm_eps"),
    "negative epsilon": (changed("config.json", rms_norm_eps=-1), "-1 for rms_norm_eps"),
    "a vocabulary of a text": (changed("config.json", vocab_size="many"), "'many' for vocab_size"),
    "a larger vocabulary": (changed("config.json", vocab_size=5_000), "the config a vocabulary of 5000"),
    "a tie of a text": (changed("config.json", tie_word_embeddings="no"), "'no' for tie_word_embeddings"),
    "an end of a text": (changed("config.json", eos_token_id="</s>"), "'</s>' for eos_token_id"),
    "ends of texts": (changed("generation_config.json", eos_token_id=[1, "a"]), "generation_config.json of .* eos_tok"),
    "generation config cut off": (cut_off("generation_config.json", 9), "generation_config.json of .* not valid JSON"),
    # weights
    "no weights": (removed("model.safetensors"), "has no model.safetensors and no pytorch_model.bin"),
    "empty weights": (written("model.safetensors", b""), "'model.safetensors' of .* cannot be read"),
    "weights without their end": (cut_off("model.safetensors", 5_000_000), "'model.safetensors' of .* cannot be read"),
    "weights of text": (written("model.safetensors", "weights " * 99), "'model.safetensors' of .* cannot be read"),
    "a header of many gigabytes": (written("model.safetensors", b"\xff" * 99), "'model.safetensors' of .* cannot be"),
    "no embeddings": (weights(lambda tensors: tensors.pop(EMBEDDINGS)), "no tensor 'model.embed_tokens.weight'"),
    "no head": (weights(lambda tensors: tensors.pop(HEAD)), "no tensor 'lm_head.weight'"),
    "a flat norm": (
        weights(lambda tensors: tensors.update({NORM: torch.ones(160, 2)})),
        r"'model.norm.weight' has .* shape \(160,\)",
    ),
    "integer weights": (weights(lambda tensors: tensors.update({HEAD: tensors[HEAD].char()})), "is of the type int8"),
    "few embeddings": (weights(lambda tensors: tensors.update({EMBEDDINGS: torch.ones(9, 160)})), "of 9 tokens"),
    "harmful pickle": (harmful_pickle, "'pytorch_model.bin' of .* cannot be read"),
    "plain harmful pickle": (plain_pickle, "'pytorch_model.bin' of .* cannot be read"),
    "an index without map": (index({}), "has no weight_map"),
    "an index to above": (index({"weight_map": {EMBEDDINGS: "../../x.safetensors"}}), "is no file beside it"),
    "an index to the root": (index({"weight_map": {EMBEDDINGS: "/etc/hostname"}}), "is no file beside it"),
    "an index to nothing": (index({"weight_map": {EMBEDDINGS: "lost.safetensors"}}), "has no lost.safetensors"),
    "an index to a name too long": (index({"weight_map": {EMBEDDINGS: "x" * 300}}), "has no xxx"),
    "an index to half a character": (index({"weight_map": {EMBEDDINGS: "\ud800"}}), "is no file beside it"),
    "an index to a text": (index({"weight_map": {EMBEDDINGS: "README.md"}}), "'README.md' of .* cannot be read"),
    "an index without tensors": (index({"weight_map": {}}), "no tensor 'model.embed_tokens.weight'"),
    # the tokenizer
    "no tokenizer": (removed("tokenizer.json"), "has no tokenizer.json"),
    "an empty tokenizer": (written("tokenizer.json", ""), "tokenizer.json of .* cannot be read"),
    "a tokenizer cut off": (cut_off("tokenizer.json", 999), "tokenizer.json of .* cannot be read"),
    "a deep tokenizer": (written("tokenizer.json", DEEP), "tokenizer.json of .* cannot be read"),
    "a tokenizer of an unknown kind": (tokenizer(model={"type": "Oracle"}), "tokenizer.json of .* cannot be read"),
    "a tokenizer without words": (
        tokenizer(model={"type": "BPE", "vocab": {}, "merges": []}, added_tokens=[], post_processor=None),
        "The tokenizer of .* cannot be used: its vocabulary is empty",
    ),
    "an unknown post-processor": (tokenizer(post_processor={"type": "Oracle"}), "tokenizer.json of .* cannot be read"),
    "a pattern that is none": (
        tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        "tokenizer.json of .* cannot be read",
    ),
    "another model's tokenizer": (
        tokenizer(model=WORDS, pre_tokenizer=None, decoder=None),
        "has 5000 tokens, but the model's head has",
    ),
    "a tokenizer's config cut off": (
        cut_off("tokenizer_config.json", 99),
        "tokenizer_config.json of .* not valid JSON",
    ),
    "a tokenizer's config of a text": (written("tokenizer_config.json", '"x"'), "tokenizer_config.json of .* no JSON"),
    "an end token of a number": (changed("tokenizer_config.json", eos_token=5), "says '5' for eos_token"),
    "an end token of half a character": (changed("tokenizer_config.json", eos_token="\ud83d"), "for eos_token"),
    "special tokens of a text": (
        changed("tokenizer_config.json", additional_special_tokens="<a>"),
        "for additional_special_tokens",
    ),
    "added tokens of a list": (
        changed("tokenizer_config.json", added_tokens_decoder=["a"]),
        "for added_tokens_decoder",
    ),
    "added tokens of no number": (
        changed("tokenizer_config.json", added_tokens_decoder={"x": {"content": "a"}}),
        "for added_tokens_decoder",
    ),
    "added tokens without texts": (
        changed("tokenizer_config.json", added_tokens_decoder={"1": {}}),
        "for added_tokens_decoder",
    ),
    "a template of a number": (
        changed("tokenizer_config.json", chat_template=5),
        "has a chat_template that is neither",
    ),
    "templates without names": (changed("tokenizer_config.json", chat_template=[{}]), "chat_template that is neither"),
    "a template named by a list": (
        changed("tokenizer_config.json", chat_template=[{"name": ["a"], "template": "x"}]),
        "tokenizer_config.json of .* has a chat_template that is neither",
    ),
    "an old template named by a list": (
        written("chat_template.json", '{"chat_template": [{"name": ["a"], "template": "x"}]}'),
        "chat_template.json of .* has a chat_template that is neither",
    ),
    "a template of bytes": (written("chat_template.jinja", b"\xff"), "chat_template.jinja of .* cannot be read"),
    "an old template of a list": (
        written("chat_template.json", '{"chat_template": [1]}'),
        "chat_template.json of .* has",
    ),
}


@pytest.mark.filterwarnings("ignore:.*pickles only")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_with_what_is_broken(folder: Path, name: str) -> None:
    change, told = BROKEN[name]
    change(folder)
    error = error_of(folder)
    assert isinstance(error, (ModelLoadError, UnsupportedModelError))
    assert re.search(told, str(error)), str(error)
    assert str(error).encode()  # can be printed


def test_more_than_fifty_kinds_of_broken_models_are_tried() -> None:
    assert len(BROKEN) > 50


@pytest.mark.parametrize(
    "name", ["no/such/folder", "a b", "/no/such/folder", "a\0b", "a" * 5000, "https://huggingface.co/a/b", "", "..."]
)
def test_an_impossible_name_is_refused(name: str) -> None:
    assert isinstance(error_of(name), (InvalidRequestError, ModelLoadError))


def test_a_file_is_no_model(folder: Path) -> None:
    assert isinstance(error_of(folder / "config.json"), InvalidRequestError)


@pytest.mark.parametrize(
    "address",
    ["", "nobody", "/ip4/1.2.3.4", f"/ip4/1.2.3/tcp/1/p2p/{PEER_ID}", f"/ip4/1.2.3.4/tcp/1/p2p/{PEER_ID}x/", "/p2p/x"],
)
def test_a_malformed_address_is_refused(folder: Path, address: str) -> None:
    error = error_of(folder, initial_peers=[address])
    assert isinstance(error, InvalidRequestError)
    assert "the form is /ip4/203.0.113.7/tcp/31337/p2p/12D3KooW..." in str(error)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "nowhere"])
def test_a_device_that_cannot_compute_is_refused(folder: Path, device: str) -> None:
    assert "cannot be used" in str(error_of(folder, device=device))


def test_a_peer_that_cannot_be_reached_is_named(folder: Path) -> None:
    error = error_of(folder)
    assert isinstance(error, SwarmUnreachableError)
    assert NOBODY in str(error)
    assert "Check that" in str(error)


def test_a_public_swarm_that_cannot_be_reached_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_petals.engine.loading.load.PUBLIC_PEERS", (NOBODY,))
    error = error_of(folder, initial_peers=None)
    assert isinstance(error, SwarmUnreachableError)
    assert "Petals' public swarm could not be joined" in str(error)
    assert "give the initial_peers of a swarm that runs" in str(error)


def test_a_token_without_an_embedding_is_an_error() -> None:
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 4}
    parts = ModelParts(config, family_of(config, "small"), lambda name: torch.ones(4 if "norm" in name else (3, 4)))
    assert parts.embed(torch.tensor([[0, 2]])).shape == (1, 2, 4)
    with pytest.raises(ModelLoadError, match="token ids up to 3, but the model has embeddings for 3 tokens"):
        parts.embed(torch.tensor([[0, 3]]))
