r"""Text of strangers on a terminal: what would steer the terminal is shown instead, and no word is broken."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

if TYPE_CHECKING:
    from collections.abc import Callable

_PICTURES = 0x2400  # where Unicode has a picture of each ASCII control character
_HARMLESS: dict[int, str] = {code: chr(_PICTURES + code) for code in range(0x20) if chr(code) not in "\t\n"}
_HARMLESS |= {0x7F: "\u2421", ord("\r"): ""}  # a carriage return would let the line be written over
# the second set of control characters, and those that turn the direction of text around
_CODES = (*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_ESCAPED = {code: f"\\u{code:04x}" for code in _CODES}

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")
_TAB = 4  # columns


def harmless(text: str) -> str:
    r"""Return a text with which a terminal does nothing but show it.

    Args:
        text: Any text. Line feeds and tabs stay, carriage returns go, other control characters become visible.

    Example:
        >>> from langchain_petals.cli.plain_text import harmless
        >>> harmless("\x1b[2J\x9b and more")
        '␛[2J\\u009b and more'
    """
    return text.translate(_HARMLESS | _ESCAPED)


def json_line(value: Any, encoding: str = "utf-8") -> str:
    """Return a value as JSON on one line, in which no character steers a terminal.

    Args:
        value: What JSON can hold.
        encoding: Encoding of the output; if it has not all characters, those outside of ASCII become escapes.
    """
    value = finite(value)
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # or half a surrogate pair
        text = json.dumps(value)
    return text.replace("\x7f", "\\u007f").translate(_ESCAPED)


def finite(value: Any) -> Any:
    """Return a value with None for each number that JSON does not have: infinity, and what is no number."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class WordWrap:
    r"""Breaks lines between words, in a text that comes in pieces; a word waits for its end.

    Args:
        width: Returns the columns of the terminal, whose size may change.

    Example:
        >>> from langchain_petals.cli.plain_text import WordWrap
        >>> wrap = WordWrap(lambda: 12)
        >>> wrap.add("three little wo") + wrap.add("rds") + wrap.end()
        'three little\nwords'
    """

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column, self._space, self._word = 0, "", ""

    def add(self, text: str) -> str:
        """Take a piece; return what to write now."""
        written = ""
        for part in _PARTS.findall(text):
            if part == "\n":
                written += self._end_word() + part
                self._column, self._space = 0, ""
            elif part.isspace():
                written += self._end_word()
                self._space += part.expandtabs(_TAB)
            else:
                for character in part:
                    self._word += character
                    if cell_len(character) > 1:  # Chinese and Japanese have no spaces
                        written += self._end_word()
        return written

    def end(self) -> str:
        """Return what is left, and begin anew with a new line."""
        written = self._end_word()
        self._column, self._space = 0, ""
        return written

    def _end_word(self) -> str:
        word, space = self._word, self._space
        if not word:
            return ""
        self._word = self._space = ""
        width, length = max(1, self._width()), cell_len(word)
        if self._column and self._column + len(space) + length > width:
            self._column, space = 0, "\n"
        self._column = (self._column + len(space.lstrip("\n")) + length - 1) % width + 1  # too long words are broken
        return space + word
