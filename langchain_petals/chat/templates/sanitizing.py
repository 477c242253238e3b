"""Keeps texts from outside from acting as the template's own markers.

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

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.reasoning import END, START
from langchain_petals.chat.templates.segments import Segment, join_segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_PLACEHOLDERS = range(0xF0000, 0xFFFFE)
_PLACEHOLDER = re.compile("[\U000f0000-\U000ffffd]")

# Texts that templates put beside their own. Others are written as JSON, or compared with words.
_TEXTS = ("content", "reasoning_content", "name")

# Keys of calls and tools, which cannot be markers.
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
    """Return the markers in a rendered prompt, also those that are composed of a role's name.

    Args:
        rendered: The prompt.
        content: How the content of each message begins; a heading stands right before it.
    """
    heading = rf"(?:^|[\n>\]])[ \t]*((?:#{{1,6}} ?)?[A-Za-z][\w ]{{0,30}}:)[ \t]*\n?{re.escape(content)}"
    headings = re.findall(heading, rendered)
    return frozenset(_TAG.findall(rendered)) | frozenset(headings)


class Markers:
    """The markers of a template.

    Args:
        tokens: Texts that the tokenizer turns into one token of its own, such as `<|im_end|>`.
        written: Markers that are ordinary text for the tokenizer, such as `### User:`. One that ends with a colon is a
            marker at the beginning of a line only.
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
        tags = (marker for marker in self.written if text.startswith(marker) and not marker.endswith(":"))
        return max(tags, key=len, default=None)

    @cached_property
    def overlapping(self) -> re.Pattern[str] | None:
        """Like `token_pattern`, for occurrences that overlap."""
        return re.compile(f"(?=({self.token_pattern.pattern}))") if self.token_pattern else None

    @cached_property
    def written_pattern(self) -> re.Pattern[str] | None:
        """A pattern that finds any of the written markers, however they are spaced and capitalised."""
        return _pattern(self.written)

    @cached_property
    def inline_pattern(self) -> re.Pattern[str] | None:
        """Like `written_pattern`, without the markers at the beginning of a line: JSON has no lines."""
        return _pattern(marker for marker in self.written if not marker.endswith(":"))

    @cached_property
    def beginnings(self) -> frozenset[str]:
        """All proper beginnings of tokens."""
        return frozenset(token[:length] for token in self.tokens for length in range(1, len(token)))

    @cached_property
    def ends(self) -> frozenset[str]:
        """All proper ends of tokens."""
        return frozenset(token[-length:] for token in self.tokens for length in range(1, len(token)))

    @cached_property
    def longest(self) -> int:
        """Characters of the longest token."""
        return max(map(len, self.tokens), default=0)


def _pattern(markers: Iterable[str]) -> re.Pattern[str] | None:
    alternatives = [_loose_pattern(marker) for marker in sorted(markers, key=len, reverse=True)]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


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

    Args:
        markers: The markers of the template.
        values: The input of the template, and its source; placeholders are characters that occur in neither.

    Attributes:
        free: Iterator over unused placeholder characters.
    """

    def __init__(self, markers: Markers, values: Any) -> None:
        self._markers = markers
        taken = {character for text in _strings(values) for character in _PLACEHOLDER.findall(text)}
        self.free = (chr(code) for code in _PLACEHOLDERS if chr(code) not in taken)
        self._placeholders: dict[tuple[str, bool], str] = {}

    def turn(self, turn: Mapping[str, Any], *, calls_as_json: bool = False) -> dict[str, Any]:
        """Return a copy of a message without markers; its role is not changed.

        Args:
            turn: The message.
            calls_as_json: Whether its tool calls will be written as JSON in one line.
        """
        # an answer may hold the model's reasoning, which templates look for and take out
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
        """Return a copy of a value without markers.

        Args:
            value: A string, or lists and dictionaries of strings.
            keep: Markers that stay.
            as_json: Whether it will be written as JSON in one line, where no text begins a line.
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
        """Return a text with placeholders for a beginning and an end that could be a part of a token."""
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
            self._placeholders[meaning] = next(self.free)
        return self._placeholders[meaning]

    def release(self, rendered: str) -> list[Segment]:
        """Return a rendered prompt with the texts in place of their placeholders."""
        meanings = {character: meaning for meaning, character in self._placeholders.items()}
        pieces: list[tuple[str, bool | None]] = []  # None: a part of a token, which the text beside it may complete
        for piece in re.split(f"({_PLACEHOLDER.pattern})", rendered):
            text, whole = meanings.get(piece, (piece, None))
            pieces.append((text, True if whole is None else (False if whole else None)))
        completed = self._completed(pieces)
        return join_segments(
            Segment(text, trusted=index not in completed if trusted is None else trusted)
            for index, (text, trusted) in enumerate(pieces)
        )

    def _completed(self, pieces: Sequence[tuple[str, bool | None]]) -> set[int]:
        """Return the indices of the parts of tokens that became a token together with the text beside them."""
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
