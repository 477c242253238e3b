"""Tokenizers give the ids and texts of transformers 4.34, which petals' own client uses.

scripts/golden_tokenizers.py has written what is compared here.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine.constraints.vocabulary import Vocabulary
from langchain_petals.engine.loading.model_chat_template import read_chat_template
from langchain_petals.engine.loading.tokenizer_files import load_tokenizer
from langchain_petals.errors import InvalidRequestError, ModelLoadError
from langchain_petals.hub import Repository

if TYPE_CHECKING:
    from langchain_petals.engine.loading.fast_tokenizer import FastTokenizer

GOLDEN = Path(__file__).with_name("golden")
KINDS = sorted(path.name.partition(".")[0] for path in GOLDEN.glob("*.golden.json"))


def load(folder: Path, files: dict[str, Any]) -> FastTokenizer:
    source = GOLDEN / files["tokenizer"]
    shutil.copy(source, folder / source.name.partition(".")[2])
    for name, content in files.items():
        if name != "tokenizer":
            (folder / name).write_text(json.dumps(content))
    return load_tokenizer(Repository(str(folder)), files["config.json"])


@pytest.fixture(params=KINDS)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[FastTokenizer, dict[str, Any]]:
    """Return a tokenizer of each kind, and what transformers 4.34 has made of it."""
    content = json.loads((GOLDEN / f"{request.param}.golden.json").read_text(encoding="utf-8"))
    return load(tmp_path, content["files"]), content["results"]


def test_there_is_a_tokenizer_of_each_kind() -> None:
    assert len(KINDS) == 12


def test_ids_and_texts_equal_those_of_transformers_4_34(golden: tuple[FastTokenizer, dict[str, Any]]) -> None:
    tokenizer, results = golden
    found = [
        {
            "text": text,
            "ids": (ids := tokenizer(text)["input_ids"]),
            "plain_ids": tokenizer(text, add_special_tokens=False)["input_ids"],
            "decoded": tokenizer.decode(ids),
            "decoded_without_special": tokenizer.decode(ids, skip_special_tokens=True),
            "decoded_as_is": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
        }
        for text in (each["text"] for each in results["texts"])
    ]
    assert [(new, old) for new, old in zip(found, results["texts"], strict=True) if new != old] == []


def test_vocabulary_and_special_tokens_equal_those_of_transformers_4_34(
    golden: tuple[FastTokenizer, dict[str, Any]],
) -> None:
    tokenizer, results = golden
    found = {
        "class": results["class"],
        "size": len(tokenizer),
        "special_tokens_map": tokenizer.special_tokens_map,
        "all_special_tokens": tokenizer.all_special_tokens,
        "all_special_ids": tokenizer.all_special_ids,
        "added_vocab": tokenizer.get_added_vocab(),
        "special_ids": [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        "names": tokenizer.convert_ids_to_tokens(list(range(0, len(tokenizer), 7))),
    }
    assert found == {name: value for name, value in results.items() if name != "texts"}


def golden_files(kind: str) -> dict[str, Any]:
    files: dict[str, Any] = json.loads((GOLDEN / f"{kind}.golden.json").read_text(encoding="utf-8"))["files"]
    return files


def test_the_class_of_qwen_changes_no_ids(tmp_path: Path) -> None:
    files = golden_files("qwen")
    plain = load(tmp_path, files)
    own = files | {"tokenizer_config.json": files["tokenizer_config.json"] | {"tokenizer_class": "Qwen2Tokenizer"}}
    text = "<|im_start|>user\nHi, don't 123<|im_end|>"
    assert load(tmp_path, own)(text) == plain(text)
    assert load(tmp_path, own).special_tokens_map == plain.special_tokens_map


def test_tokenizer_model_alone_needs_sentencepiece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as if it were not installed
    with pytest.raises(ModelLoadError, match=r"only tokenizer\.model, .* Run `pip install sentencepiece`"):
        load(tmp_path, golden_files("llama_model_file"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\n\xff\xff\xff\xff\x0f"])
def test_a_broken_tokenizer_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"tokenizer\.model of .* cannot be read"):
        load_tokenizer(Repository(str(tmp_path)), {"model_type": "llama"})


def test_tokenizer_model_of_another_family_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"has no tokenizer\.json"):
        load_tokenizer(Repository(str(tmp_path)), {"model_type": "bloom"})


def test_a_tokenizer_at_which_the_library_panics_is_refused(tmp_path: Path) -> None:
    content = json.loads((GOLDEN / "llama3.tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"]["special_tokens"] = {}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelLoadError, match=r"The tokenizer of .* cannot be used"):
        load_tokenizer(Repository(str(tmp_path)), {"model_type": "falcon"})


def test_padding_to_any_length_is_not_done(tmp_path: Path) -> None:
    content = json.loads((GOLDEN / "llama3.tokenizer.json").read_text(encoding="utf-8"))
    sides = {"pad_id": 0, "pad_type_id": 0, "pad_token": "x", "direction": "Right", "pad_to_multiple_of": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"padding": {"strategy": {"Fixed": 2**60}, **sides}}))
    tokenizer = load_tokenizer(Repository(str(tmp_path)), {"model_type": "falcon"})
    assert len(tokenizer("a")["input_ids"]) == 2


# ---- chat templates

ONE, TWO, THREE = "{{ 'one' }}", "{{ 'two' }}", "{{ 'three' }}"


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"tokenizer_config.json": {"chat_template": ONE}}, ONE),
        (
            {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": ONE}]}},
            {"default": ONE},
        ),
        ({"chat_template.json": {"chat_template": TWO}, "tokenizer_config.json": {"chat_template": ONE}}, TWO),
        ({"chat_template.jinja": THREE, "chat_template.json": {"chat_template": TWO}}, THREE),
        (
            {"chat_template.jinja": ONE, "additional_chat_templates/tool_use.jinja": TWO},
            {"default": ONE, "tool_use": TWO},
        ),
    ],
    ids=["none", "in the config", "named", "in JSON", "in a file", "in two files"],
)
def test_a_chat_template_is_found_where_repositories_keep_it(tmp_path: Path, files: dict[str, Any], found: Any) -> None:
    (tmp_path / "additional_chat_templates").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    config = files.get("tokenizer_config.json", {})
    assert read_chat_template(Repository(str(tmp_path)), config) == found


# ---- grammars


def test_every_kind_of_tokenizer_can_be_used_with_a_grammar(golden: tuple[FastTokenizer, dict[str, Any]]) -> None:
    tokenizer, _ = golden
    vocabulary = Vocabulary(tokenizer)
    assert vocabulary.size == len(tokenizer)
    assert vocabulary.ends == [tokenizer.eos_token_id]
    ids = tokenizer('{"a": 1}', add_special_tokens=False)["input_ids"]
    assert b"".join(vocabulary.bytes[token] for token in ids).strip() == b'{"a": 1}'
    assert set(vocabulary.specials.values()) <= set(tokenizer.get_added_vocab().values())


def test_half_a_character_is_refused_with_where_it_comes_from(golden: tuple[FastTokenizer, dict[str, Any]]) -> None:
    tokenizer, _ = golden
    with pytest.raises(InvalidRequestError, match=r"holds U\+DCFF, half of a surrogate pair.*no UTF-8"):
        tokenizer(b"one \xff two".decode(errors="surrogateescape"))
