"""Limits on numbers and nesting, so that JSON parsers can read an answer; grammars have no such limits."""

from __future__ import annotations

import re
from typing import NamedTuple

from langchain_petals.json_scanner import JsonPosition

MOST_CHARACTERS = 200
"""Most characters of a number. With this many digits and the largest exponent, a number still fits a double."""
MOST_DEPTH = 200
"""Most levels of nested objects and arrays. Python's own parser fails at about 1,000, others fail earlier."""

_OVERFLOWS = re.compile(r"[eE]\+?0*[1-9]\d\d")
_NUMERIC = frozenset("0123456789+-.eE")
_PLAIN_IN_STRINGS = re.compile(rb'[^"\\]*')


class Reading(NamedTuple):
    """The state of a parser after a part of a JSON text that fits a grammar."""

    position: JsonPosition = JsonPosition()
    number: str = ""  # the characters at the end of the text that may be part of one number

    def after(self, data: bytes) -> Reading | None:
        """Return the state after more text; None if parsers could not read that text."""
        position, number = self.position, self.number
        if position.in_string and not position.escaped and _PLAIN_IN_STRINGS.fullmatch(data):
            return self
        for character in data.decode("latin-1"):  # one character for each byte, since only ASCII matters here
            number = number + character if character in _NUMERIC and not position.in_string else ""
            position = position.after(character)
            if position.depth > MOST_DEPTH or len(number) > MOST_CHARACTERS or _OVERFLOWS.search(number):
                return None
        return Reading(position, number)
