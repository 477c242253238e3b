"""A rendered prompt as parts that may hold special tokens and parts that may not, and its token ids."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_petals.tokenizer import Tokenizer

# Text in front of a part, so that it is not taken for the beginning: SentencePiece puts a space there. Its tokens are
# cut off again. Several, since a tokenizer may merge one with what follows, or a special token may swallow the space.
_ANCHORS = ("\n", "\x01", "a", "|", ".")


@dataclass(frozen=True)
class Segment:
    """A part of a rendered prompt.

    Args:
        text: The text.
        trusted: Whether special tokens in it are special. They are not where a message's content spells them.
    """

    text: str
    trusted: bool


def join_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Join neighbours of one kind, and leave out empty ones."""
    result: list[Segment] = []
    for segment in segments:
        if result and result[-1].trusted == segment.trusted:
            result[-1] = Segment(result[-1].text + segment.text, trusted=segment.trusted)
        elif segment.text:
            result.append(segment)
    return result


def encode(rendered: Sequence[Segment], tokenizer: Tokenizer, *, continued: bool = False) -> list[int]:
    """Return the token ids of a rendered prompt.

    No tokens are added: a chat template writes the first one itself. Special tokens in trusted parts become what they
    are; in the others, the tokens of the text that spells them. No space gets in between the parts.

    Args:
        rendered: What `ChatTemplate.render` returned, or a part of it.
        tokenizer: A transformers tokenizer, fast or slow.
        continued: The text goes on after other text: its beginning is not the beginning of the prompt.

    Example:
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
        ids += encoder.encode(part.text, plain=not part.trusted, first=not (ids or continued))
    return ids


class _PartEncoder:
    """Encodes parts of a text one by one."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        joined = [*_ids(tokenizer, "a"), *_ids(tokenizer, "b")]
        self._marks_beginning = _text(tokenizer, joined) != "ab"

    def encode(self, text: str, *, plain: bool, first: bool) -> list[int]:
        return self._plain(text, first=first) if plain else self._encode(text, first=first)

    def _encode(self, text: str, *, first: bool) -> list[int]:
        return _ids(self._tokenizer, text) if first else self._behind_others(text)

    def _behind_others(self, text: str) -> list[int]:
        # hostile messages repeat themselves
        if text not in self._known:
            self._known[text] = self._behind_anchor(text) if self._marks_beginning else _ids(self._tokenizer, text)
        return self._known[text]

    def _behind_anchor(self, text: str) -> list[int]:
        for anchor in _ANCHORS:
            front, both = _ids(self._tokenizer, anchor), _ids(self._tokenizer, anchor + text)
            if both[: len(front)] == front:
                return both[len(front) :]
        return _ids(self._tokenizer, text)

    @cached_property
    def _added(self) -> dict[str, int]:
        """The tokens that a text could be taken for; one character is what it is."""
        tokenizer = self._tokenizer
        special = zip(map(str, tokenizer.all_special_tokens), tokenizer.all_special_ids, strict=True)
        return {token: number for token, number in (*tokenizer.get_added_vocab().items(), *special) if len(token) > 1}

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        """A pattern for the first character of an added token; each is found, also where they overlap."""
        beginnings = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in self._added)
        return re.compile("|".join(beginnings) or "(?!)")

    @cached_property
    def _forbidden(self) -> frozenset[int]:
        # the unknown token stands for characters that the vocabulary lacks, too
        return frozenset(self._added.values()) - {self._tokenizer.unk_token_id}

    def _plain(self, text: str, *, first: bool) -> list[int]:
        """Encode in pieces so small that no added token is among them: `</s>` as `<`, `/s>`."""
        cuts = [0, *(match.end() for match in self._beginning.finditer(text)), len(text)]
        ids: list[int] = []
        for start, end in itertools.pairwise(cuts):
            piece = text[start:end]
            encoded = self._encode(piece, first=first and not start)
            if not self._forbidden.isdisjoint(encoded):
                # the tokenizer changes the text before it looks for tokens; one character is none of them
                behind = itertools.chain.from_iterable(map(self._behind_others, piece[1:]))
                encoded = [*self._encode(piece[0], first=first and not start), *behind]
            ids += encoded
        return ids


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # verbose: the length is checked later, with an error
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
