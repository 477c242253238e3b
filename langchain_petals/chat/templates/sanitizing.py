"""Keeps what people write from being read as the template's own marks.

A prompt is one text. Where a message says `<|im_end|>` or `### Assistant:`, the text has one more turn than the
conversation, and whoever wrote the message has written for somebody else. Two kinds of marks need two defences:

- *Special tokens* (`<|im_end|>`, `</s>`) act as tokens, not as text. The text stays as it is, and is later encoded as
  ordinary text (see `segments.encode`). To find it again in the rendered prompt, each occurrence is one private-use
  character while the template runs, which survives trimming, joining, upper-casing and JSON.
- *Written marks* (`### User:`, `[INST]`) are ordinary text in the template too. They get a space in front of their last
  character: `### User :`, `[INST ]`. People and models can read that, and it is not the mark any more.

A mark can also come together at the border between content and template (`<|im_` at the end of a message, `end|>` right
behind it). Such beginnings and ends are followed through the template as well, and kept apart if they met.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.templates.segments import Segment, join_segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PLACEHOLDERS = range(0xF0000, 0xFFFFE)
_PLACEHOLDER = re.compile("[\U000f0000-\U000ffffd]")

# Texts that templates put beside their own; the others come as JSON, and templates compare them with words.
_TEXTS = ("content", "reasoning_content", "name")

# What calls and tools consist of. They are words, which could not act as marks.
_KEYS = frozenset(["type", "id", "function", "name", "arguments", "description", "parameters"])

# An answer may hold the model's reasoning, which templates look for and take out.
_REASONING = ("<think>", "</think>")

_ROLE = r"(?:user|human|assistant|system|ai|bot|gpt|falcon|instruction|response|input|output|question|answer|tool)s?"
# How templates write marks: <|im_start|>, <s>, </think>, <<SYS>>, <start_of_turn>; [INST], [/TOOL_CALLS]; ### Human:.
_TAG = re.compile(r"<<?/?\|?[A-Za-z][\w .-]{0,40}\|?>?>|<\uff5c[^<>\uff5c]{1,40}\uff5c>|\[/?[A-Z][A-Z_ ]{1,40}\]")
_HEADING = re.compile(rf"#{{1,6}} ?\w+(?: \w+)?:|(?<![\w ]){_ROLE}:", re.IGNORECASE)
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_LINE_START = r"(?:^|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]))"


def is_tag(text: str) -> bool:
    """Return whether a token is written as marks are, and not as a word of a vocabulary."""
    return _TAG.fullmatch(text) is not None


def marks_in(source: str) -> frozenset[str]:
    """Return the marks that a template's source spells out."""
    unescaped = _COMMENT.sub("", source).replace("\\n", "\n")
    return frozenset(_TAG.findall(unescaped)) | frozenset(match.strip() for match in _HEADING.findall(unescaped))


def marks_around(rendered: str, content: str) -> frozenset[str]:
    """Return the marks that a template has put into a prompt, which may be composed of a role's name and more.

    Args:
        rendered: The prompt.
        content: How the content of each message begins; headings are what stands right before it.
    """
    heading = rf"(?:^|[\n>\]])[ \t]*((?:#{{1,6}} ?)?[A-Za-z][\w ]{{0,30}}:)[ \t]*\n?{re.escape(content)}"
    headings = re.findall(heading, rendered)
    return frozenset(_TAG.findall(rendered)) | frozenset(headings)


class Markers:
    """The marks of a template.

    Args:
        tokens: Texts that the tokenizer turns into one token of its own, such as `<|im_end|>`.
        written: Marks that are ordinary text to the tokenizer, such as `### User:`. One that ends with a colon counts
            at the beginning of a line only.
    """

    def __init__(self, tokens: Iterable[str], written: Iterable[str]) -> None:
        self.tokens = frozenset(token for token in tokens if token.strip())
        self.written = frozenset(written) - self.tokens

    @cached_property
    def token_pattern(self) -> re.Pattern[str] | None:
        """A pattern that finds any of the tokens, the longest first."""
        alternatives = sorted(self.tokens, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, alternatives))) if alternatives else None

    def at_start(self, text: str) -> str | None:
        """Return the token or the tag that a text begins with."""
        token = self.token_pattern and self.token_pattern.match(text)
        if token:
            return token[0]
        tags = (mark for mark in self.written if text.startswith(mark) and not mark.endswith(":"))
        return max(tags, key=len, default=None)

    @cached_property
    def overlapping(self) -> re.Pattern[str] | None:
        """Like `token_pattern`, for occurrences that overlap."""
        return re.compile(f"(?=({self.token_pattern.pattern}))") if self.token_pattern else None

    @cached_property
    def written_pattern(self) -> re.Pattern[str] | None:
        """A pattern that finds any of the written marks, however they are spaced and capitalised."""
        return _pattern(self.written)

    @cached_property
    def inline_pattern(self) -> re.Pattern[str] | None:
        """Like `written_pattern`, without the marks that count at the beginning of a line only: JSON has no lines."""
        return _pattern(mark for mark in self.written if not mark.endswith(":"))

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """What a token may begin with."""
        return frozenset(token[:length] for token in self.tokens for length in range(1, len(token)))

    @cached_property
    def ends(self) -> frozenset[str]:
        """What a token may end with."""
        return frozenset(token[-length:] for token in self.tokens for length in range(1, len(token)))

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.tokens), default=0)


def _pattern(marks: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = [_loosely(mark) for mark in sorted(marks, key=len, reverse=True)]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


def _loosely(mark: str) -> str:
    """Return a pattern for a written mark; a space in front of the last character is what makes it none."""
    if not mark.endswith(":"):
        return re.escape(mark)
    words = mark[:-1].lstrip("#")
    hashes = mark[: len(mark) - 1 - len(words)]
    name = r"[ \t]+".join(map(re.escape, words.split()))
    return rf"{_LINE_START}[ \t]*{hashes}[ \t]*{name}:"


class Sanitizer:
    """Texts that come from outside, on their way through one render.

    Args:
        markers: The marks that they must not make.
        values: Everything that goes into the template, and its source: placeholders are characters that occur in none.

    Attributes:
        free: Gives characters that occur nowhere, each to one who takes it.
    """

    def __init__(self, markers: Markers, values: Any) -> None:
        self._markers = markers
        taken = {character for text in _strings(values) for character in _PLACEHOLDER.findall(text)}
        self.free = (chr(code) for code in _PLACEHOLDERS if chr(code) not in taken)
        self._placeholders: dict[tuple[str, bool], str] = {}
        self._meanings: dict[str, tuple[str, bool]] = {}

    def turn(self, turn: Mapping[str, Any], *, calls_as_json: bool = False) -> dict[str, Any]:
        """Return a copy of a message in which no text can make a mark; its role is left alone.

        Args:
            turn: The message.
            calls_as_json: Its tool calls are written as JSON, in one line.
        """
        keep = _REASONING if turn["role"] == "assistant" else ()
        protected = {
            key: value if key == "role" else self.protect(value, keep, as_json=calls_as_json and key == "tool_calls")
            for key, value in turn.items()
        }
        for key in _TEXTS:
            if isinstance(protected.get(key), str):
                protected[key] = self._borders(protected[key])
        return protected

    def protect(self, value: Any, keep: Sequence[str] = (), *, as_json: bool = False) -> Any:
        """Return a copy of a value in which no text contains a mark.

        Args:
            value: A string, or lists and dictionaries of strings.
            keep: Marks that are left alone.
            as_json: It is written as JSON in one line, so that no text begins a line.
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

    def _text(self, text: str, keep: Sequence[str], written: re.Pattern[str] | None) -> str:
        if written:
            text = written.sub(lambda match: match[0] if match[0] in keep else f"{match[0][:-1]} {match[0][-1]}", text)
        if self._markers.token_pattern:
            text = self._markers.token_pattern.sub(
                lambda match: match[0] if match[0] in keep else self._placeholder(match[0], whole=True), text
            )
        return text

    def _borders(self, text: str) -> str:
        """Follow a beginning and an end that could be part of a token together with the template's text."""
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        longest = self._markers.longest - 1
        if len(core) <= longest and any(core in token for token in self._markers.tokens):
            core = self._placeholder(core, whole=False)
        else:
            tail = _longest_in(self._markers.beginnings, (core[-n:] for n in range(min(longest, len(core)), 0, -1)))
            if tail:
                core = core[: -len(tail)] + self._placeholder(tail, whole=False)
            head = _longest_in(self._markers.ends, (core[:n] for n in range(min(longest, len(core)), 0, -1)))
            if head:
                core = self._placeholder(head, whole=False) + core[len(head) :]
        return text[:start] + core + text[start + len(text.strip()) :]

    def _placeholder(self, text: str, *, whole: bool) -> str:
        meaning = text, whole
        if meaning not in self._placeholders:
            character = next(self.free)
            self._placeholders[meaning] = character
            self._meanings[character] = meaning
        return self._placeholders[meaning]

    def release(self, rendered: str) -> list[Segment]:
        """Return a rendered prompt with the texts back in their places."""
        pieces: list[tuple[str, bool | None]] = []  # None: a part of a token; it depends on what is beside it
        for piece in re.split(f"({_PLACEHOLDER.pattern})", rendered):
            text, whole = self._meanings.get(piece, (piece, None))
            trusted = True if piece not in self._meanings else (False if whole else None)
            pieces.append((text, trusted))
        met = self._met(pieces)
        return join_segments(
            Segment(text, trusted=index not in met if trusted is None else trusted)
            for index, (text, trusted) in enumerate(pieces)
        )

    def _met(self, pieces: Sequence[tuple[str, bool | None]]) -> set[int]:
        """Return which of the uncertain pieces are part of a token now."""
        uncertain: list[tuple[int, int, int]] = []
        position = 0
        for index, (text, trusted) in enumerate(pieces):
            if trusted is None:
                uncertain.append((index, position, position + len(text)))
            position += len(text)
        if not uncertain or not self._markers.overlapping:
            return set()
        whole = "".join(text for text, _ in pieces)
        found = [match.span(1) for match in self._markers.overlapping.finditer(whole)]
        return {index for index, start, end in uncertain if any(a < end and start < b for a, b in found)}


def _longest_in(known: frozenset[str], candidates: Iterator[str]) -> str:
    return next((candidate for candidate in candidates if candidate in known), "")


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
