"""Tokenizers give the ids and texts of transformers 4.34, which petals' own client uses.

scripts/golden_tokenizers.py has written what is compared here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine.loading.tokenizer_files import load_tokenizer
from langchain_petals.errors import ModelLoadError
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
