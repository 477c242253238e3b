"""Incremental scanning of JSON: the nesting depth, and whether the text is inside a string."""

from __future__ import annotations

from typing import NamedTuple


class JsonPosition(NamedTuple):
    """A position in a JSON text; the text is not checked."""

    depth: int = 0  # objects and arrays that are open; negative if more were closed than opened
    in_string: bool = False
    escaped: bool = False  # whether the last character was a backslash that escapes the next one

    def after(self, character: str) -> JsonPosition:
        r"""Return the position after one more character.

        Example:
            >>> from langchain_petals.json_scanner import JsonPosition
            >>> position = JsonPosition()
            >>> for character in '{"a": [1, "}':
            ...     position = position.after(character)
            >>> position
            JsonPosition(depth=2, in_string=True, escaped=False)
        """
        if self.escaped:
            return JsonPosition(self.depth, in_string=True)
        if self.in_string:
            return JsonPosition(self.depth, character != '"', character == "\\")
        return JsonPosition(self.depth + (character in "{[") - (character in "}]"), character == '"')
