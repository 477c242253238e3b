"""Splits the reasoning `<think>...</think>` at the beginning of an answer from the rest."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

START, END = "<think>", "</think>"

_SPACE = string.whitespace  # ASCII only: the engine's guide reads bytes, and must skip the same


class ReasoningSplitter:
    """Splits a growing text into reasoning and answer.

    Reasoning is the text between `<think>` and `</think>` at the very beginning; later markers are part of the answer.
    White space around the markers belongs to neither.

    Args:
        started: Whether the prompt ended with `<think>`, so that the model begins inside its reasoning.
        ends: Texts that end the reasoning like `</think>`, but are part of the answer: the markers of tool calls.
    """

    def __init__(self, *, started: bool = False, ends: Sequence[str] = ()) -> None:
        self._held = ""
        self._state = "reasoning" if started else "start"
        self._fresh = True  # nothing but white space since the state began
        self._ends = (END, *ends)

    @property
    def inside(self) -> bool:
        """Whether the next text is reasoning."""
        return self._state == "reasoning"

    def add(self, text: str) -> tuple[str, str]:
        """Take more text; return the reasoning and the answer in it, as far as they are certain."""
        self._held += text
        reasoning = ""
        if self._state == "start":
            begun = self._held.lstrip(_SPACE)
            if START.startswith(begun[: len(START)]) and len(begun) < len(START):
                return "", ""  # it may become the marker
            if begun.startswith(START):
                self._state, self._held = "reasoning", begun[len(START) :]
            else:
                self._state, self._fresh = "answer", False
        if self._state == "reasoning":
            self._skip_space()
            found = [at for end in self._ends if (at := self._held.find(end)) >= 0]
            if not found:
                # the end of the text may belong to a marker, or be the space in front of one
                beginnings = (end[:length] for end in self._ends for length in range(len(end) - 1, 0, -1))
                marker = max(filter(self._held.endswith, beginnings), key=len, default="")
                certain = len(self._held.removesuffix(marker).rstrip(_SPACE))
                reasoning, self._held = self._held[:certain], self._held[certain:]
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
        """Return the reasoning and the answer that were held back; call it at the end of the text."""
        text, self._held = self._held, ""
        return (text.rstrip(_SPACE), "") if self._state == "reasoning" else ("", text)
