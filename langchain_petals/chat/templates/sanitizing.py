"""Makes sure that texts from outside cannot act as the template's own markers.

A prompt is one text. Where a message contains `<|im_end|>` or `### Assistant:`, the prompt seems to have one more turn
than the conversation, so that the author of one message could write the messages of others. There are two kinds of
markers:

- *Special tokens* (`<|im_end|>`, `</s>`) act as tokens, not as text. The text stays as it is, and is later encoded as
  ordinary text (see `segments.encode`). While the template runs, a placeholder stands for each occurrence: one
  private-use character, which survives trimming, joining, upper-casing and JSON.
- *Written markers* (`### User:`, `[INST]`) are ordinary text for the tokenizer. They get a space in front of their last
  character: `### User :`, `[INST ]`. People and models can read that, and it is no marker any more.

A token can also come together at the border between content and template (`<|im_` at the end of a message, `end|>`
right after it). Placeholders stand for such parts of tokens as well; `release` finds those that became a token.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.reasoning import END, START
from langchain_petals.chat.templates.segments import Segment, join_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_PLACEHOLDERS = range(0xF0000, 0xFFFFE)
_PLACEHOLDER = re.compile("[\U000f0000-\U000ffffd]")

# Keys of the texts that templates write next to their own. Other values become JSON, or are only compared.
_TEXTS = ("content", "reasoning_content", "name")

# Fixed keys of calls and tools; they cannot be markers.
_KEYS = frozenset(["type", "id", "function", "name", "arguments", "description", "parameters"])

_ROLE = r"(?:user|human|assistant|system|ai|bot|gpt|falcon|instruction|response|input|output|question|answer|tool)s?"
# Markers of templates: <|im_start|>, <s>, </think>, <<SYS>>, <start_of_turn>; [INST], [/TOOL_CALLS]; ### Human:.
_TAG = re.compile(r"<<?/?\|?[A-Za-z][\w .-]{0,40}\|?>?>|<\uff5c[^<>\uff5c]{1,40}\uff5c>|\[/?[A-Z][A-Z_ ]{1,40}\]")
_HEADING = re.compile(rf"#{{1,6}} ?\w+(?: \w+)?:|(?<![\w ]){_ROLE}:", re.IGNORECASE)
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_LINE_START = r"(?:^|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"


def is_tag(text: str) -> bool:
    """Return whether a token looks like a marker, and not like a word."""
    return _TAG.fullmatch(text) is not None


def markers_in(source: str) -> frozenset[str]:
    """Return the markers in a template's source."""
    unescaped = _COMMENT.sub("", source).replace("\\n", "\n")
    return frozenset(_TAG.findall(unescaped)) | frozenset(match.strip() for match in _HEADING.findall(unescaped))


def markers_around(rendered: str, content: str) -> frozenset[str]:
    """Return the markers in a rendered prompt, and the headings before its messages, which begin with `content`."""
    heading = rf"(?:^|[\n>\]])[ \t]*((?:#{{1,6}} ?)?[A-Za-z][\w ]{{0,30}}:)[ \t]*\n?{re.escape(content)}"
    headings = re.findall(heading, rendered)
    return frozenset(_TAG.findall(rendered)) | frozenset(headings)


class Markers:
    """The markers of a template.

    A written marker that ends with a colon (`### User:`) counts only at the beginning of a line; JSON has no lines.
    """

    def __init__(self, tokens: Iterable[str], written: Iterable[str]) -> None:
        self.tokens = frozenset(token for token in tokens if token.strip())
        self.token_pattern = _pattern(self.tokens, re.escape)
        self.overlapping = re.compile(f"(?=({self.token_pattern.pattern}))")
        markers = frozenset(written) - self.tokens
        self.tags = [marker for marker in markers if not marker.endswith(":")]
        self.written_pattern = _pattern(markers, _loose_pattern, re.IGNORECASE)
        self.inline_pattern = _pattern(self.tags, re.escape, re.IGNORECASE)
        self.beginnings = frozenset(token[:length] for token in self.tokens for length in range(1, len(token)))
        self.ends = frozenset(token[-length:] for token in self.tokens for length in range(1, len(token)))
        self.longest = max(map(len, self.tokens), default=0)

    def at_start(self, text: str) -> str | None:
        """Return the token or the tag that a text begins with."""
        if token := self.token_pattern.match(text):
            return token[0]
        return max(filter(text.startswith, self.tags), key=len, default=None)


def _pattern(markers: Iterable[str], pattern_of: Callable[[str], str], flags: int = 0) -> re.Pattern[str]:
    """Return a pattern that finds any of the markers, the longest first."""
    alternatives = map(pattern_of, sorted(markers, key=len, reverse=True))
    return re.compile("|".join(alternatives) or "(?!)", flags)


def _loose_pattern(marker: str) -> str:
    """Return a pattern for a written marker; with a space in front of the last character it does not match."""
    if not marker.endswith(":"):
        return re.escape(marker)
    words = marker[:-1].lstrip("#")
    hashes = marker[: len(marker) - 1 - len(words)]
    name = r"[ \t]+".join(map(re.escape, words.split()))
    return rf"{_LINE_START}[ \t]*{hashes}[ \t]*{name}:"


class Sanitizer:
    """Replaces markers in texts from outside by placeholders before one render, and restores them after it.

    `values` are the input of the template, and its source. `free` iterates over placeholders that do not occur in them.
    """

    def __init__(self, markers: Markers, values: Any) -> None:
        self._markers = markers
        taken = {character for text in _strings(values) for character in _PLACEHOLDER.findall(text)}
        self.free = (chr(code) for code in _PLACEHOLDERS if chr(code) not in taken)
        # The key is a text and its trust: False for a whole token, None for a part that its neighbours may complete.
        self._placeholders: dict[tuple[str, bool | None], str] = {}

    def turn(self, turn: Mapping[str, Any], *, calls_as_json: bool = False) -> dict[str, Any]:
        """Return a copy of a message without markers; its role is not changed. For `calls_as_json` see `protect`."""
        # templates find the model's reasoning in an answer by these markers, and remove it
        keep = (START, END) if turn["role"] == "assistant" else ()
        protected = {
            key: value if key == "role" else self.protect(value, keep, as_json=calls_as_json and key == "tool_calls")
            for key, value in turn.items()
        }
        for key in _TEXTS:
            if isinstance(protected.get(key), str):
                protected[key] = self._borders(protected[key])
        return protected

    def protect(self, value: Any, keep: Sequence[str] = (), *, as_json: bool = False) -> Any:
        """Return a copy of a value without markers, except those in `keep`.

        Set `as_json` if the value will be written as one line of JSON, where no text begins a line.
        """
        if isinstance(value, str):
            return self._text(value, keep, self._markers.inline_pattern if as_json else self._markers.written_pattern)
        if isinstance(value, dict):
            return {
                key if key in _KEYS else self.protect(key, keep, as_json=as_json): self.protect(
                    item, keep, as_json=as_json
                )
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.protect(item, keep, as_json=as_json) for item in value]
        return value

    def _text(self, text: str, keep: Sequence[str], written: re.Pattern[str]) -> str:
        text = written.sub(lambda match: match[0] if match[0] in keep else f"{match[0][:-1]} {match[0][-1]}", text)
        return self._markers.token_pattern.sub(
            lambda match: match[0] if match[0] in keep else self._placeholder(match[0], trusted=False), text
        )

    def _borders(self, text: str) -> str:
        """Return a text with placeholders for its beginning and its end, if these could be parts of a token."""
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        longest = self._markers.longest - 1
        if len(core) <= longest and any(core in token for token in self._markers.tokens):
            core = self._placeholder(core)
        else:
            tail = _longest_in(self._markers.beginnings, (core[-n:] for n in range(min(longest, len(core)), 0, -1)))
            if tail:
                core = core[: -len(tail)] + self._placeholder(tail)
            head = _longest_in(self._markers.ends, (core[:n] for n in range(min(longest, len(core)), 0, -1)))
            if head:
                core = self._placeholder(head) + core[len(head) :]
        return before + core + after

    def _placeholder(self, text: str, *, trusted: bool | None = None) -> str:
        meaning = text, trusted
        if meaning not in self._placeholders:
            self._placeholders[meaning] = next(self.free)
        return self._placeholders[meaning]

    def release(self, rendered: str) -> list[Segment]:
        """Return a rendered prompt with the texts in place of their placeholders."""
        meanings = {character: meaning for meaning, character in self._placeholders.items()}
        pieces = [meanings.get(piece, (piece, True)) for piece in re.split(f"({_PLACEHOLDER.pattern})", rendered)]
        completed = self._completed(pieces)
        return join_segments(
            Segment(text, trusted=index not in completed if trusted is None else trusted)
            for index, (text, trusted) in enumerate(pieces)
        )

    def _completed(self, pieces: Sequence[tuple[str, bool | None]]) -> set[int]:
        """Return the indices of the parts of tokens that form a token together with their neighbours."""
        if all(trusted is not None for _, trusted in pieces):
            return set()
        whole = "".join(text for text, _ in pieces)
        found = [match.span(1) for match in self._markers.overlapping.finditer(whole)]
        ends = itertools.accumulate(len(text) for text, _ in pieces)
        return {
            index
            for index, ((text, trusted), end) in enumerate(zip(pieces, ends, strict=True))
            if trusted is None and any(a < end and end - len(text) < b for a, b in found)
        }


def _longest_in(known: frozenset[str], candidates: Iterator[str]) -> str:
    return next((candidate for candidate in candidates if candidate in known), "")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
