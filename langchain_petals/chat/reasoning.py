"""`<think>...</think>` at the beginning of an answer: the reasoning of models that think aloud first."""

from __future__ import annotations

START, _END = "<think>", "</think>"


class ReasoningSplitter:
    """Tells reasoning from the answer while both are being written.

    Reasoning is what stands between `<think>` and `</think>` at the very beginning; the same words further on are part
    of the answer. White space around the markers belongs to neither.

    Args:
        started: The prompt ended with `<think>`, so the model begins inside.
    """

    def __init__(self, *, started: bool = False) -> None:
        self._held = ""
        self._state = "reasoning" if started else "start"
        self._fresh = True  # nothing but white space since the state began

    @property
    def inside(self) -> bool:
        """Whether what comes next is reasoning."""
        return self._state == "reasoning"

    def add(self, text: str) -> tuple[str, str]:
        """Take more text; return what is certain by now: reasoning, and answer."""
        self._held += text
        reasoning = ""
        if self._state == "start":
            begun = self._held.lstrip()
            if START.startswith(begun[: len(START)]) and len(begun) < len(START):
                return "", ""  # it may still become the marker
            if begun.startswith(START):
                self._state, self._held = "reasoning", begun[len(START) :]
            else:
                self._state, self._fresh = "answer", False
        if self._state == "reasoning":
            self._skip_space()
            end = self._held.find(_END)
            if end < 0:
                keep = _tail(self._held)
                reasoning, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
                return reasoning, ""
            reasoning, self._held = self._held[:end].rstrip(), self._held[end + len(_END) :]
            self._state, self._fresh = "answer", True
        self._skip_space()
        answer, self._held = self._held, ""
        return reasoning, answer

    def _skip_space(self) -> None:
        if self._fresh:
            self._held = self._held.lstrip()
            self._fresh = not self._held

    def flush(self) -> tuple[str, str]:
        """Return what was held back when the text ended."""
        text, self._held = self._held, ""
        return (text.rstrip(), "") if self._state == "reasoning" else ("", text)


def _tail(text: str) -> int:
    """Return how many characters at the end may belong to the end marker or the space in front of it."""
    marker = next((length for length in range(len(_END) - 1, 0, -1) if text.endswith(_END[:length])), 0)
    rest = text[: len(text) - marker]
    return marker + len(rest) - len(rest.rstrip())
