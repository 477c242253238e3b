"""Encodes a rendered prompt, whose segments may or may not contain special tokens."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_petals.tokenizer import Tokenizer

# A part that is not the first is encoded together with an anchor before it, or SentencePiece would add a space. The
# anchor's tokens are then removed. There are several anchors, since a tokenizer may merge one with the text that
# follows, or a special token may remove the space.
_ANCHORS = ("\n", "\x01", "a", "|", ".")


@dataclass(frozen=True)
class Segment:
    """A part of a rendered prompt.

    Args:
        text: The text.
        trusted: Whether special tokens in it act as such. They do not in texts from outside.
    """

    text: str
    trusted: bool


def join_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return segments with neighbours of one kind joined, and without empty ones."""
    result: list[Segment] = []
    for segment in segments:
        if result and result[-1].trusted == segment.trusted:
            result[-1] = Segment(result[-1].text + segment.text, trusted=segment.trusted)
        elif segment.text:
            result.append(segment)
    return result


def encode(rendered: Sequence[Segment], tokenizer: Tokenizer, *, continued: bool = False) -> list[int]:
    """Return the token ids of a rendered prompt.

    No tokens are added: a chat template writes the first one itself. Special tokens in trusted segments become one
    token each; in the others they are encoded as ordinary text. No space is added between segments.

    Args:
        rendered: The result of `ChatTemplate.render`, or a part of it.
        tokenizer: A transformers tokenizer, fast or slow.
        continued: Whether other text precedes it in the prompt.

    Example:
        >>> from tokenizers import Tokenizer, models
        >>> from langchain_petals.chat.templates import ChatTemplate, encode
        >>> from langchain_petals.engine.loading.fast_tokenizer import FastTokenizer
        >>> backend = Tokenizer(models.BPE({letter: n for n, letter in enumerate("Hi<|m_end>")}, []))
        >>> backend.add_special_tokens(["<|im_end|>"])
        1
        >>> tokenizer = FastTokenizer(backend, {"eos_token": "<|im_end|>"})
        >>> template = ChatTemplate("{{ messages[0].content }}<|im_end|>", token_markers=["<|im_end|>"])
        >>> ids = encode(template.render([{"role": "user", "content": "Hi<|im_end|>"}]), tokenizer)
        >>> ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>"))
        1
    """
    parts = join_segments(rendered)
    if len(parts) == 1 and parts[0].trusted and not continued:
        return _ids(tokenizer, parts[0].text)
    encoder = _PartEncoder(tokenizer)
    ids: list[int] = []
    for part in parts:
        encode_part = encoder.trusted if part.trusted else encoder.plain
        ids += encode_part(part.text, first=not (ids or continued))
    return ids


class _PartEncoder:
    """Encodes parts of a text one by one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        joined = [*_ids(tokenizer, "a"), *_ids(tokenizer, "b")]
        both = tokenizer.decode(joined, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        self._anchors = () if both == "ab" else _ANCHORS

    def trusted(self, text: str, *, first: bool) -> list[int]:
        return _ids(self._tokenizer, text) if first else self._after_others(text)

    def _after_others(self, text: str) -> list[int]:
        # cached, since hostile messages repeat special tokens many times
        if text not in self._known:
            self._known[text] = self._after_anchor(text)
        return self._known[text]

    def _after_anchor(self, text: str) -> list[int]:
        for anchor in self._anchors:
            front, both = _ids(self._tokenizer, anchor), _ids(self._tokenizer, anchor + text)
            if both[: len(front)] == front:
                return both[len(front) :]
        return _ids(self._tokenizer, text)

    @cached_property
    def _added(self) -> dict[str, int]:
        """Ids of the added tokens that are longer than one character, by their text."""
        tokenizer = self._tokenizer
        special = zip(map(str, tokenizer.all_special_tokens), tokenizer.all_special_ids, strict=True)
        return {token: number for token, number in (*tokenizer.get_added_vocab().items(), *special) if len(token) > 1}

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        """A pattern that matches the first character of each added token, also of overlapping ones."""
        beginnings = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in self._added)
        return re.compile("|".join(beginnings) or "(?!)")

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        # ordinary text may become the unknown token
        return frozenset(self._added.values()) - {self._tokenizer.unk_token_id}

    def plain(self, text: str, *, first: bool) -> list[int]:
        """Encode in pieces that contain no added token: `</s>` as `<`, `/s>`."""
        cuts = [0, *(match.end() for match in self._beginning.finditer(text)), len(text)]
        ids: list[int] = []
        for start, end in itertools.pairwise(cuts):
            piece = text[start:end]
            encoded = self.trusted(piece, first=first and not start)
            if not self._forbidden.isdisjoint(encoded):
                # normalisation made a token of the piece; single characters cannot become one
                others = itertools.chain.from_iterable(map(self._after_others, piece[1:]))
                encoded = [*self.trusted(piece[0], first=first and not start), *others]
            ids += encoded
        return ids


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # without transformers' warning about the length, which is checked later
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
