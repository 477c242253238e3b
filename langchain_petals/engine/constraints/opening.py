"""Finds the beginning of an answer's text, since some markers count only there."""

from __future__ import annotations


class Opening:
    """Tells whether an answer has text besides white space and reasoning. If `begun`, the prompt began reasoning."""

    def __init__(self, reasoning: tuple[str, str] | None, *, begun: bool) -> None:
        start, end = reasoning or ("", "")
        self._start, self._end = start.encode(), end.encode()
        self._state = "reasoning" if begun and reasoning else "start"
        self._held = b""  # white space, or what may become a marker

    @property
    def blank(self) -> bool:
        """Whether there is no text so far."""
        return self._state in ("start", "after") and not self._held.strip()

    def add(self, data: bytes) -> None:
        """Take more of the answer."""
        if self._state == "text":
            return
        self._held += data
        if self._state == "start":
            self._held = begun = self._held.lstrip()
            if not begun:
                return
            if self._start and begun.startswith(self._start):
                self._state, self._held = "reasoning", begun[len(self._start) :]
            elif not self._start.startswith(begun):
                self._state = "text"
        if self._state == "reasoning":
            _, end, rest = self._held.partition(self._end)
            self._held = rest if end else self._held[-len(self._end) :]
            self._state = "after" if end else "reasoning"
        if self._state == "after":
            self._held = self._held.lstrip()
            self._state = "text" if self._held else "after"

    def end(self) -> None:
        """Note that a call has begun."""
        self._state = "text"
