"""Tool calls out of an answer's text, as it comes.

An answer is text with calls in it: a start marker, JSON objects with a name and arguments, and an end marker. `feed`
takes the text in pieces, however it was cut, and tells what has become certain: text, parts of calls as they are
written, and what looked like a call but is none. Markers, and white space that only sets calls apart, are in none of
these.
"""

from __future__ import annotations

import json
import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence


_ID_CHARACTERS = string.ascii_letters + string.digits

# JSON that is nested too deep, or a number of too many digits (a plain ValueError), is as good as none
_UNREADABLE = (ValueError, RecursionError)

CUT_OFF = "the token limit ended this call before the model did, so its arguments are cut off; raise max_tokens"
"""What is wrong with a call that was ended early."""

_SPACE = string.whitespace  # and no other of Unicode's, since the engine's guide sees bytes and has to agree


@dataclass(frozen=True)
class TextPart:
    """Text of the answer."""

    text: str


@dataclass(frozen=True)
class CallPart:
    """A part of a tool call; the parts of one index, joined, make the call.

    Attributes:
        index: Which call of the answer, from 0.
        id: A new identifier, in the first part of a call; None in the others.
        name: The tool, in one of the parts; None in the others.
        arguments: More of the arguments' JSON text.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True)
class BrokenCall:
    """What begins like a call and is none; parts of it that were told before are void.

    Attributes:
        index: Which call of the answer it would have been.
        text: What the model wrote, markers included.
        error: What is wrong with it.
        readable: Whether it can be read all the same, so that its parts are what they seem.
    """

    index: int
    text: str
    error: str
    readable: bool = False


Part = TextPart | CallPart | BrokenCall


@dataclass(frozen=True)
class Delimiters:
    """How calls are set apart from text.

    Attributes:
        starts: What comes before a call, or before several.
        end: What comes after them; empty where they last to the end of the answer.
        separators: Characters that may stand between the marks and the JSON objects, beside white space.
        arguments: The key of a call's arguments.
        before: What is put between a text and the first call, or a call and the text after it, and belongs to neither.
        bare: How a call without a start marker may begin, up to its name; only where no text comes before it.
        leading: Whether the others too count only where no text comes before them, since text is no place for calls.
    """

    starts: tuple[str, ...]
    end: str
    separators: str
    arguments: str
    before: str = ""
    bare: tuple[str, ...] = ()
    leading: bool = False


def new_id() -> str:
    """Return an identifier for a call: nine letters and digits, since Mistral's templates take no others."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(9))


class ToolCallParser:
    """Splits one answer into text and tool calls.

    Args:
        marks: How calls are set apart.
        bare: Texts that begin a call without a start marker; only where no text comes before it.
        identify: Makes an identifier for each call.
        check: Tells what is wrong with the arguments (second) of a call of a tool (first); None if nothing is.
    """

    def __init__(
        self,
        marks: Delimiters,
        bare: Sequence[str] = (),
        *,
        identify: Callable[[], str] = new_id,
        check: Callable[[str, dict[str, Any]], str | None] = lambda *_: None,
    ) -> None:
        self._marks, self._bare, self._identify, self._check = marks, tuple(bare), identify, check
        self._cut = False
        self._held = ""  # text that may be the beginning of a marker, and white space in front of it
        self._spoken = False  # some text was told
        self._calls = 0
        self._region: _Region | None = None

    def feed(self, text: str, *, cut: bool = False) -> list[Part]:
        """Take more of the answer; return what has become certain.

        Args:
            text: It may be cut anywhere.
            cut: Whether the token limit, and not the model, decided on some of it: calls that are not complete before
                that are none.
        """
        self._cut = self._cut or cut
        return _merged(self._parts(text))

    def _problem(self, name: str, arguments: dict[str, Any]) -> str | None:
        return CUT_OFF if self._cut else self._check(name, arguments)

    def close(self) -> list[Part]:
        """Return the rest: the answer is over."""
        if self._region is not None:
            parts = list(self._region.close())
            self._region = None
            return _merged(iter(parts))
        held, self._held = self._held, ""
        return list(self._said(held)) if held.strip() or not self._calls else []

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
        self._held += text
        if self._marks.leading and self._is_text():
            text, self._held = self._held, ""
            yield from self._said(text)
            return ""
        starts = [(at, start) for start in self._marks.starts if (at := self._held.find(start)) >= 0]
        begun = self._held.lstrip(_SPACE)
        if self._bare and not self._spoken and not self._calls and begun.startswith(self._bare):
            starts.append((len(self._held) - len(begun), ""))
        if starts:
            at, start = min(starts)
            before, rest = self._held[:at], self._held[at + len(start) :]
            self._held = ""
            if before.strip() or self._spoken:
                yield from self._said(before.removesuffix(self._marks.before))
            self._region = _Region(self._marks, start, self._calls, self._identify, self._problem)
            return rest
        keep = self._kept()
        certain, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        yield from self._said(certain)
        return ""

    def _is_text(self) -> bool:
        """Whether the answer is text and not calls, as far as is known."""
        begun = self._held.lstrip(_SPACE)
        no_call = begun and not any(start.startswith(begun[: len(start)]) for start in self._marks.starts)
        return not self._calls and (self._spoken or bool(no_call))

    def _kept(self) -> int:
        """Return how much of the held text may yet belong to a marker."""
        held = self._held
        begun = [
            length for start in self._marks.starts for length in range(1, len(start)) if held.endswith(start[:length])
        ]
        keep = max(begun, default=0)
        if not self._spoken and not self._calls and any(each.startswith(held.lstrip(_SPACE)) for each in self._bare):
            return len(held)
        text = held[: len(held) - keep]
        return keep + len(text) - len(text.rstrip())

    def _said(self, text: str) -> Iterator[Part]:
        if self._calls and not self._spoken:  # between two texts it sets these apart, and stays
            text = text.removeprefix(self._marks.before)
        if text:
            self._spoken = True
            yield TextPart(text)


def _merged(parts: Iterator[Part]) -> list[Part]:
    """Join neighbours that say more of the same."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            merged[-1] = TextPart(last.text + part.text)
        elif (
            isinstance(part, CallPart)
            and isinstance(last, CallPart)
            and part.index == last.index
            and part.id is None
            and (part.name is None or last.name is None)
        ):
            merged[-1] = CallPart(last.index, last.id, last.name or part.name, last.arguments + part.arguments)
        else:
            merged.append(part)
    return merged


class _Region:
    """What stands between a start marker and an end marker.

    Args:
        marks: How calls are set apart.
        start: The start marker.
        index: Of the first call.
        identify: Makes an identifier for each call.
        check: Tells what is wrong with the arguments of a call that can be read.
    """

    def __init__(
        self,
        marks: Delimiters,
        start: str,
        index: int,
        identify: Callable[[], str],
        check: Callable[[str, dict[str, Any]], str | None],
    ) -> None:
        self._marks, self._identify, self._check = marks, identify, check
        self.index = index
        self._raw = [start]  # since the last complete call, character by character
        self._tail = ""  # as much of its end as an end marker has
        self._call: _Call | None = None
        self._mark = ""  # of the end marker
        self._any = False
        self._broken: str | None = None

    def feed(self, text: str) -> Generator[Part, None, str | None]:
        """Take more; yields parts, and returns the text after the end marker, or None while there is none."""
        for at, character in enumerate(text):
            self._raw.append(character)
            self._tail = (self._tail + character)[-max(1, len(self._marks.end)) :]
            if self._call is None:
                over = self._ends_with(character)
            elif self._cut_off(self._call):
                self._call, self._broken, over = None, "its JSON is not complete", True
            else:
                yield from self._within(self._call, character)
                over = False
            if over:
                yield from self._over()
                return text[at + 1 :]
        return None

    def close(self) -> Iterator[Part]:
        """Return the parts of what the answer's end left open."""
        if self._call is not None:
            self._broken = "the answer ends in the middle of it"
        yield from self._over()

    def _ends_with(self, character: str) -> bool:
        """Take a character that is in no call; return whether it completes the end marker."""
        end, mark = self._marks.end, self._mark + character
        if end and end.startswith(mark):
            self._mark = "" if mark == end else mark
            return mark == end
        if self._broken is None:
            if character == "{" and not self._mark:
                self._call = _Call(self._marks.arguments)
                self._call.feed(character)
            elif self._mark or not (character.isspace() or character in self._marks.separators):
                self._broken = f"{mark!r} is not the beginning of a JSON object"
        while mark and not end.startswith(mark):
            mark = mark[1:]
        self._mark = mark
        return False

    def _cut_off(self, call: _Call) -> bool:
        """Whether the end marker came in the middle of a call; a marker of one character may be a part of it."""
        end = self._marks.end
        return len(end) > 1 and not call.in_string and self._tail == end

    def _within(self, call: _Call, character: str) -> Iterator[Part]:
        name, arguments, complete = call.feed(character)
        if name is not None or arguments:
            yield CallPart(self.index, None if call.told else self._identify(), name, arguments)
            call.told = True
        if not complete:
            return
        self._call, self._broken = None, call.problem()
        if self._broken is None:
            if not call.arguments:
                yield CallPart(self.index, arguments="{}")
            error = self._check(call.name or "", json.loads("".join(call.arguments) or "{}"))
            if error is not None:
                yield BrokenCall(self.index, "".join(self._raw), error, readable=True)
            self.index, self._raw, self._tail, self._any = self.index + 1, [], "", True

    def _over(self) -> Iterator[Part]:
        if self._broken is None and not self._any:
            self._broken = "there is no JSON object in it"
        if self._broken is not None:
            yield BrokenCall(self.index, "".join(self._raw), self._broken)
            self.index += 1


class _Call:
    """One JSON object, character by character.

    Args:
        key: The key of the arguments.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._raw: list[str] = []
        self._depth = 0
        self._escaped = False
        self.in_string = False
        self._word: list[str] = []  # the key or value that is being read at the top level, but for the arguments
        self._member: str | None = None  # the key whose value is being read
        self.name: str | None = None
        self._arguments: list[str] = []
        self.told = False

    @property
    def arguments(self) -> str:
        """The arguments' JSON text so far."""
        return "".join(self._arguments)

    def feed(self, character: str) -> tuple[str | None, str, bool]:
        """Take a character; return the name if it is known now, more of the arguments, and whether that was the end."""
        self._raw.append(character)
        outside = not self.in_string
        if self.in_string:
            self.in_string = self._escaped or character != '"'
            self._escaped = not self._escaped and character == "\\"
        elif character == '"':
            self.in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        top = outside and self._depth <= 1
        if top and self._depth <= 0:
            return self._ended_value(), "", True
        if top and character == ",":
            return self._ended_value(), "", False
        if top and self._member is None and character == ":":
            self._member, self._word = _string("".join(self._word)) or "", []
            return None, "", False
        if len(self._raw) == 1:
            return None, "", False
        return None, self._read(character), False

    def _read(self, character: str) -> str:
        """Take a character of a key or a value; return it if it is one of the arguments'."""
        if self._member != self._key:
            self._word.append(character)
        elif self._arguments or not character.isspace():
            self._arguments.append(character)
            return character
        return ""

    def _ended_value(self) -> str | None:
        name = _string("".join(self._word)) if self._member == "name" and self.name is None else None
        self.name = name if name is not None else self.name
        self._member, self._word = None, []
        return name

    def problem(self) -> str | None:
        """Return why this is no call."""
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
        except ValueError:  # each of them is JSON
            return f"it has {self._key} twice"
        return None


def _string(word: str) -> str | None:
    try:
        value = json.loads(word)
    except _UNREADABLE:
        return None
    return value if isinstance(value, str) else None
