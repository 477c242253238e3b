"""Tokenizers of transformers fit the Protocol that the package asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GPT2Tokenizer

from langchain_petals.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

MEMBERS = ["__call__", "__len__", *(name for name in vars(Tokenizer) if not name.startswith("_"))]


def test_fast_and_slow_tokenizers_have_all_members(merging_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    merging_tokenizer.backend_tokenizer.model.save(str(tmp_path))
    slow = GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for tokenizer in (merging_tokenizer, slow):
        assert [name for name in MEMBERS if not hasattr(tokenizer, name)] == []
