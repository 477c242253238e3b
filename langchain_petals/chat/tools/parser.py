"""Incremental parser of answers that contain tool calls.

An answer is text that may contain calls: a start marker, JSON objects with a name and arguments, and an end marker.
`feed` takes the text in pieces of any size. It returns text, parts of calls as they are written, and broken calls.
It drops markers and the white space between calls.
"""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_petals.json_scanner import JsonPosition

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence


_ID_CHARACTERS = string.ascii_letters + string.digits

# the `json` module raises these for invalid JSON, numbers of too many digits, or too deep nesting
_UNREADABLE = (ValueError, RecursionError)

CUT_OFF = "the token limit ended this call before the model did, so its arguments are cut off; raise max_tokens"
"""The error of a call that the token limit ended."""

_SPACE = string.whitespace  # ASCII only: the engine's guide reads bytes, and both must find the same markers


@dataclass(frozen=True)
class TextPart:
    """Text of the answer."""

    text: str


@dataclass(frozen=True)
class CallPart:
    """A part of a tool call; joined, the parts of one index are the call.

    Attributes:
        index: Index of the call in the answer, from 0.
        id: A new identifier in the first part of a call; None in the others.
        name: The tool's name in one of the parts; None in the others.
        arguments: More of the arguments' JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class BrokenCall:
    """A call that is not valid; its parts that were returned earlier are void.

    Attributes:
        index: Index of the call in the answer.
        text: The text that the model wrote, markers included.
        error: The reason.
        readable: Whether its name and arguments are valid JSON nevertheless.
    """

    index: int
    text: str
    error: str
    readable: bool = False


Part = TextPart | CallPart | BrokenCall


@dataclass(frozen=True)
class Delimiters:
    """The texts that separate calls from other text."""

    starts: tuple[str, ...]  # the start markers; one of them comes before a call, or before several
    end: str  # the end marker; empty where calls last to the end of the answer
    separators: str  # characters that may stand between the markers and the JSON objects, beside white space
    arguments: str  # the key of a call's arguments
    before: str = ""  # white space between text and calls that belongs to neither
    bare: tuple[str, ...] = ()  # how a call without a start marker begins, up to the tool's name; never after text
    leading: bool = False  # whether start markers do not count after text either


def new_id() -> str:
    """Return an identifier for a call: nine letters and digits, since Mistral's templates accept no others."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))


class ToolCallParser:
    """Splits one answer into text and tool calls.

    Args:
        delimiters: The texts that separate calls from other text.
        bare: Texts that begin a call without a start marker; they count only before any text.
        identify: Returns an identifier for each call.
        check: Takes a tool's name and a call's arguments; returns what is wrong with them, None if they are valid.
    """

    def __init__(
        self,
        delimiters: Delimiters,
        bare: Sequence[str] = (),
        *,
        identify: Callable[[], str] = new_id,
        check: Callable[[str, dict[str, Any]], str | None] = lambda *_: None,
    ) -> None:
        self._delimiters, self._bare, self._identify, self._check = delimiters, tuple(bare), identify, check
        self._cut = False
        self._held = ""  # text that may be the beginning of a marker, and white space before it
        self._has_text = False  # some text was returned
        self._calls = 0
        self._region: _Region | None = None

    def feed(self, text: str, *, cut: bool = False) -> list[Part]:
        """Take more of the answer; return the parts that are certain now.

        Args:
            text: More of the answer; it may be cut anywhere.
            cut: Whether the token limit, and not the model, decided a part of the text. A call that ends in this text
                or later is broken.
        """
        self._cut = self._cut or cut
        return list(self._parts(text))

    def close(self) -> list[Part]:
        """Return the remaining parts at the end of the answer."""
        if self._region is not None:
            region, self._region = self._region, None
            return list(region.close())
        held, self._held = self._held, ""
        return list(self._text(held)) if held.strip() or not self._calls else []

    def _problem(self, name: str, arguments: dict[str, Any]) -> str | None:
        return CUT_OFF if self._cut else self._check(name, arguments)

    def _parts(self, text: str) -> Iterator[Part]:
        while text:
            if self._region is None:
                text = yield from self._outside(text)
            else:
                rest = yield from self._region.feed(text)
                if rest is None:
                    return
                self._calls, self._region, text = self._region.index, None, rest

    def _outside(self, text: str) -> Generator[Part, None, str]:
        """Take text outside of calls; return the text after a start marker, empty if there is none."""
        self._held += text
        if self._delimiters.leading and self._is_text():
            text, self._held = self._held, ""
            yield from self._text(text)
            return ""
        starts = [(at, start) for start in self._delimiters.starts if (at := self._held.find(start)) >= 0]
        unspaced = self._held.lstrip(_SPACE)
        if self._bare and self._is_first() and unspaced.startswith(self._bare):
            starts.append((len(self._held) - len(unspaced), ""))
        if starts:
            at, start = min(starts)
            before, rest = self._held[:at], self._held[at + len(start) :]
            self._held = ""
            if before.strip() or self._has_text:
                yield from self._text(before.removesuffix(self._delimiters.before))
            self._region = _Region(self._delimiters, start, self._calls, self._identify, self._problem)
            return rest
        certain = len(self._held) - self._held_length()
        text, self._held = self._held[:certain], self._held[certain:]
        yield from self._text(text)
        return ""

    def _is_first(self) -> bool:
        """Whether neither text nor a call came yet."""
        return not self._has_text and not self._calls

    def _is_text(self) -> bool:
        """Whether the answer begins with text, and not with a call."""
        begun = self._held.lstrip(_SPACE)
        no_call = begun and not any(start.startswith(begun[: len(start)]) for start in self._delimiters.starts)
        return not self._calls and (self._has_text or bool(no_call))

    def _held_length(self) -> int:
        """Return how many characters at the end of the held text may belong to a marker."""
        held = self._held
        if self._is_first() and any(each.startswith(held.lstrip(_SPACE)) for each in self._bare):
            return len(held)
        beginnings = (start[:length] for start in self._delimiters.starts for length in range(1, len(start)))
        marker = max((len(each) for each in beginnings if held.endswith(each)), default=0)
        return len(held) - len(held[: len(held) - marker].rstrip())

    def _text(self, text: str) -> Iterator[Part]:
        if self._calls and not self._has_text:  # between two texts the white space stays
            text = text.removeprefix(self._delimiters.before)
        if text:
            self._has_text = True
            yield TextPart(text)


@dataclass(eq=False)
class _Region:
    """The calls between two markers; `delimiters`, `identify` and `check` are as in `ToolCallParser`."""

    delimiters: Delimiters
    raw: str  # the text since the last complete call, at first the start marker
    index: int  # of the next call
    identify: Callable[[], str]
    check: Callable[[str, dict[str, Any]], str | None]

    def __post_init__(self) -> None:
        self._at = len(self.raw)  # the number of characters of `raw` that were read
        self._before = ""  # text before the next call, without separators
        self._call: _Call | None = None
        self._has_calls = False
        self._error: str | None = None

    def feed(self, text: str) -> Generator[Part, None, str | None]:
        """Take more text; yield parts; return the text after the end marker, or None if it has not come."""
        self.raw += text
        while self._at < len(self.raw):
            self._at += 1
            if self._is_over():
                yield from self.close()
                return self.raw[self._at :]
            character = self.raw[self._at - 1]
            if self._call is not None:
                self._call.feed(character)
                if self._call.position.depth <= 0:
                    yield from self._end_call(self._call)
            elif self._error is None:
                self._look_for_call(character)
        if self._call is not None:
            yield from self._call.news()
        return None

    def close(self) -> Iterator[Part]:
        """Yield the last parts, at the end marker or at the end of the answer."""
        if self._call is not None:
            yield from self._call.news()
            self._error = self._error or "the answer ends in the middle of it"
        if self._error is None and not self._has_calls:
            self._error = "there is no JSON object in it"
        if self._error is not None:
            yield BrokenCall(self.index, self.raw[: self._at], self._error)
            self.index += 1

    def _is_over(self) -> bool:
        """Whether the text ends with the end marker."""
        end = self.delimiters.end
        if not end or not self.raw.endswith(end, 0, self._at):
            return False
        if self._call is not None:
            if self._call.position.in_string or len(end) == 1:  # the marker may be a part of the call
                return False
            self._error = "its JSON is not complete"
        return True

    def _look_for_call(self, character: str) -> None:
        """Take a character before a call: a separator, a part of the end marker, or the call's opening brace."""
        if not self._before and (character.isspace() or character in self.delimiters.separators):
            return
        self._before += character
        if self._before == "{":
            self._call, self._before = _Call(self.index, self.identify(), self.delimiters.arguments), ""
        elif not self.delimiters.end.startswith(self._before):
            self._error = f"{self._before!r} is not the beginning of a JSON object"

    def _end_call(self, call: _Call) -> Iterator[Part]:
        """Yield the last parts of a complete object."""
        self._call, self._error = None, call.problem()
        if self._error is None and not call.arguments:
            call.add("{}")
        yield from call.news()
        if self._error is not None:
            return
        problem = self.check(call.name or "", json.loads(call.arguments))
        if problem is not None:
            yield BrokenCall(self.index, self.raw[: self._at], problem, readable=True)
        self.index, self.raw, self._at, self._has_calls = self.index + 1, self.raw[self._at :], 0, True


class _Call:
    """A JSON object that is read character by character, after its opening brace."""

    def __init__(self, index: int, identifier: str, key: str) -> None:
        self._key = key  # of the arguments
        self._raw = ["{"]
        self._word: list[str] = []  # the key or the value at the top level that is being read, but not the arguments
        self._member: str | None = None  # the key whose value is being read
        self._news = CallPart(index, identifier)
        self.position = JsonPosition(depth=1)
        self.name: str | None = None
        self.arguments = ""  # their JSON text so far

    def feed(self, character: str) -> None:
        self._raw.append(character)
        in_string, self.position = self.position.in_string, self.position.after(character)
        if not in_string and (self.position.depth <= 0 or (self.position.depth == 1 and character == ",")):
            if self._member == "name" and self.name is None:
                self.name = _string(self._word)
                self._news = replace(self._news, name=self.name)
            self._member, self._word = None, []
        elif not in_string and self.position.depth == 1 and character == ":" and self._member is None:
            self._member, self._word = _string(self._word) or "", []
        elif self._member != self._key:
            self._word.append(character)
        elif self.arguments or not character.isspace():
            self.add(character)

    def add(self, arguments: str) -> None:
        """Add to the arguments' text."""
        self.arguments += arguments
        self._news = replace(self._news, arguments=self._news.arguments + arguments)

    def news(self) -> Iterator[CallPart]:
        """Yield the part of the call that is new since the last time, if any."""
        if self._news.name is not None or self._news.arguments:
            yield self._news
            self._news = CallPart(self._news.index)

    def problem(self) -> str | None:
        """Return why the complete object is no call; None if it is one."""
        try:
            content = json.loads("".join(self._raw))
        except _UNREADABLE as error:
            return f"it is not valid JSON: {error}"
        if not isinstance(content.get("name"), str):
            return "it names no tool"
        if not isinstance(content.get(self._key, {}), dict):
            return f"its {self._key} are no JSON object"
        try:
            json.loads(self.arguments or "{}")
        except ValueError:  # two JSON objects, one after the other
            return f"it has {self._key} twice"
        return None


def _string(characters: Sequence[str]) -> str | None:
    """Return the string that a JSON text stands for; None if it stands for another value."""
    try:
        value = json.loads("".join(characters))
    except _UNREADABLE:
        return None
    return value if isinstance(value, str) else None
