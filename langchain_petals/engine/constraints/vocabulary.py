"""A tokenizer's tokens as the bytes that llguidance matches."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llguidance import LLTokenizer, TokenizerWrapper

from langchain_petals.engine.constraints.endings import Alphabet
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_petals.tokenizer import Tokenizer

_NO_UTF8 = 0xF8  # bytes from this one on never occur in UTF-8

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


class Vocabulary:
    """A tokenizer's tokens as bytes, and a second tokenizer of single bytes.

    Raises:
        InvalidRequestError: llguidance cannot read its tokens as bytes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = _llguidance_tokenizer(tokenizer)
        self.size: int = self.tokenizer.vocab_size
        self.ends: list[int] = self.tokenizer.eos_tokens
        self.bytes = [self.tokenizer.decode_bytes([token]) for token in range(self.size)]
        specials = {i for i in range(self.size) if self.bytes[i] and self.tokenizer.is_special_token(i)}
        self.specials = {self.bytes[i].decode(errors="replace"): i for i in specials}
        names = tokenizer.convert_ids_to_tokens(list(range(min(self.size, len(tokenizer)))))
        self._ids: dict[bytes, int] = {}
        for token, (data, name) in enumerate(zip(self.bytes, names, strict=False)):
            fallback = _BYTE_TOKEN.fullmatch(name or "")
            if data and token not in specials and not (fallback and data in self._ids):
                self._ids[data] = token
        self._longest = max(map(len, self._ids), default=0)
        # bytes without a token get ids after the vocabulary, since tokens may contain them
        single = {byte: self._ids.get(bytes([byte]), self.size + byte) for byte in range(_NO_UTF8)}
        self._single = {token: bytes([byte]) for byte, token in single.items()}
        end = self.tokenizer.eos_token
        self.alphabet = Alphabet(single, specials, self.size + _NO_UTF8, end)
        spelled = self._single | {token: self.bytes[token] for token in specials}
        tokens = [spelled.get(token, b"") for token in range(self.size + _NO_UTF8)]
        wrapper = TokenizerWrapper(_Spelling(tokens, end, sorted(specials), single))
        self.spelling = LLTokenizer(wrapper, eos_token=end, slices=[])
        """The alphabet's tokenizer: its only tokens are single bytes and special tokens."""

    def symbols(self, token: int) -> list[int]:
        """Return the token in symbols of the alphabet."""
        if self.tokenizer.is_special_token(token):
            return [token]
        return self.alphabet.symbols(self.bytes[token])

    def tokens(self, symbols: Sequence[int] | None) -> list[int] | None:
        """Return a short list of tokens with the text of these symbols; None if there is none, or for None."""
        if symbols is None:
            return None
        tokens: list[int] = []
        with contextlib.suppress(KeyError):  # a byte without a token
            for are_bytes, group in itertools.groupby(symbols, self._single.__contains__):
                run = list(group)
                tokens += self._spell(b"".join(self._single[symbol] for symbol in run)) if are_bytes else run
            return tokens
        return None

    def _spell(self, data: bytes) -> list[int]:
        """Return tokens for a text: from left to right, always the longest one that fits."""
        tokens, start = [], 0
        while start < len(data):
            end = min(start + self._longest, len(data))
            while end > start + 1 and data[start:end] not in self._ids:
                end -= 1
            tokens.append(self._ids[data[start:end]])
            start = end
        return tokens


@dataclass
class _Spelling:
    """The tokenizer interface that `TokenizerWrapper` needs."""

    tokens: Sequence[bytes]
    eos_token_id: int
    special_token_ids: Sequence[int]
    ids: Mapping[int, int]
    bos_token_id: int | None = None

    def __call__(self, text: bytes | str) -> list[int]:
        data = text if isinstance(text, bytes) else text.encode()
        return [self.ids[byte] for byte in data if byte in self.ids]


def _llguidance_tokenizer(tokenizer: Tokenizer) -> LLTokenizer:
    try:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:  # one of transformers' slow ones
            from transformers.convert_slow_tokenizer import convert_slow_tokenizer  # noqa: PLC0415 - heavy, and rare

            backend = convert_slow_tokenizer(tokenizer)
        return LLTokenizer(_with_readable_spaces(backend.to_str()), eos_token=tokenizer.eos_token_id)
    except Exception as error:
        msg = (
            f"a {type(tokenizer).__name__} cannot be used with a grammar ({error}); take a model with a fast tokenizer "
            "(tokenizer.json), or leave out tools, json_schema, regex and grammar"
        )
        raise InvalidRequestError(msg) from error


def _with_readable_spaces(serialized: str) -> str:
    """Return a serialized tokenizer without padding and truncation, and with a Replace instead of a Metaspace decoder.

    llguidance learns from a Replace decoder which character means a space. The tokenizers of T5 and XLM-R have a
    Metaspace decoder.
    """
    content = json.loads(serialized) | {"padding": None, "truncation": None}
    decoder = content["decoder"] or {}
    parts = decoder.get("decoders", [decoder])
    marks = [part["replacement"] for part in parts if part.get("type") == "Metaspace"]
    if marks:
        replace = {"type": "Replace", "pattern": {"String": marks[0]}, "content": " "}
        content["decoder"] = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return json.dumps(content)
