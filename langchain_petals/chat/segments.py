"""A rendered prompt as parts that may hold special tokens and parts that may not, and its token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Join neighbours of one kind, and leave out empty ones."""
    result: list[Segment] = []
    for segment in segments:
        if result and result[-1].trusted == segment.trusted:
            result[-1] = Segment(result[-1].text + segment.text, trusted=segment.trusted)
        elif segment.text:
            result.append(segment)
    return result


def encode(rendered: Sequence[Segment], tokenizer: Any, *, continued: bool = False) -> list[int]:
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
    parts = merged(rendered)
    if len(parts) == 1 and parts[0].trusted and not continued:
        return _ids(tokenizer, parts[0].text)
    encoder = _PartEncoder(tokenizer)
    ids: list[int] = []
    for part in parts:
        ids += encoder.encode(part.text, plain=not part.trusted, first=not (ids or continued))
    return ids


class _PartEncoder:
    """Encodes parts of a text one by one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.get_added_vocab().values()) | frozenset(tokenizer.all_special_ids)
        joined = [*_ids(tokenizer, "a"), *_ids(tokenizer, "b")]
        self._marks_beginning = _text(tokenizer, joined) != "ab"

    def encode(self, text: str, *, plain: bool, first: bool) -> list[int]:
        return self._plain(text, first=first) if plain else self._encode(text, first=first)

    def _encode(self, text: str, *, first: bool) -> list[int]:
        if first or not self._marks_beginning:
            return _ids(self._tokenizer, text)
        for anchor in _ANCHORS:
            front, both = _ids(self._tokenizer, anchor), _ids(self._tokenizer, anchor + text)
            if both[: len(front)] == front:
                return both[len(front) :]
        return _ids(self._tokenizer, text)

    def _plain(self, text: str, *, first: bool) -> list[int]:
        """Encode in pieces so small that no added token is among them: `</s>` as `<`, `/s>`."""
        ids = self._encode(text, first=first)
        if len(text) == 1 or self._added.isdisjoint(ids):
            return ids
        return [*self._encode(text[0], first=first), *self._plain(text[1:], first=False)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    # verbose: the length is checked later, with an error
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
