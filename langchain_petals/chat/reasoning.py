"""`<think>...</think>` at the beginning of an answer: the reasoning of models that think aloud first."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

START, END = "<think>", "</think>"

_SPACE = string.whitespace  # and no other of Unicode's, since the engine's guide sees bytes and has to agree


class ReasoningSplitter:
    """Tells reasoning from the answer while both are being written.

    Reasoning is what stands between `<think>` and `</think>` at the very beginning; the same words further on are part
    of the answer. White space around the markers belongs to neither.

    Args:
        started: The prompt ended with `<think>`, so the model begins inside.
        ends: What ends the reasoning beside `</think>`, and is part of the answer: the marker of a tool call, since a
            model that begins one has thought enough.
    """

    def __init__(self, *, started: bool = False, ends: Sequence[str] = ()) -> None:
        self._held = ""
        self._state = "reasoning" if started else "start"
        self._fresh = True  # nothing but white space since the state began
        self._ends = (END, *ends)

    @property
    def inside(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._state == "reasoning"

    def add(self, text: str) -> tuple[str, str]:
        """Take more text; return what is certain by now: reasoning, and answer."""
        self._held += text
        reasoning = ""
        if self._state == "start":
            begun = self._held.lstrip(_SPACE)
            if START.startswith(begun[: len(START)]) and len(begun) < len(START):
                return "", ""  # it may still become the marker
            if begun.startswith(START):
                self._state, self._held = "reasoning", begun[len(START) :]
            else:
                self._state, self._fresh = "answer", False
        if self._state == "reasoning":
            self._skip_space()
            found = [at for end in self._ends if (at := self._held.find(end)) >= 0]
            if not found:
                keep = self._tail()
                reasoning, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
                return reasoning, ""
            at = min(found)
            reasoning, rest = self._held[:at].rstrip(_SPACE), self._held[at:]
            self._state, self._fresh, self._held = "answer", True, rest.removeprefix(END)
        self._skip_space()
        answer, self._held = self._held, ""
        return reasoning, answer

    def _skip_space(self) -> None:
        if self._fresh:
            self._held = self._held.lstrip(_SPACE)
            self._fresh = not self._held

    def flush(self) -> tuple[str, str]:
        """Return what was held back when the text ended."""
        text, self._held = self._held, ""
        return (text.rstrip(_SPACE), "") if self._state == "reasoning" else ("", text)

    def _tail(self) -> int:
        """Return how many characters at the end may belong to a marker or the space in front of it."""
        held = self._held
        begun = [length for end in self._ends for length in range(1, len(end)) if held.endswith(end[:length])]
        marker = max(begun, default=0)
        rest = held[: len(held) - marker]
        return marker + len(rest) - len(rest.rstrip(_SPACE))
