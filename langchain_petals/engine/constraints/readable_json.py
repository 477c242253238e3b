"""JSON that parsers can read: a grammar knows no number that is too large, and no nesting that is too deep."""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_CHARACTERS = 200
"""Characters of a number. Whatever they are, with the largest exponent it is below 1e300: a double holds it."""
MOST_DEPTH = 200
"""Objects and arrays inside one another. Python's own parser gives up at some 1,000, others earlier."""

_OVERFLOWS = re.compile(rb"[eE]\+?0*[1-9]\d\d")
_NUMERIC = frozenset(b"0123456789+-.eE")
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")
_PLAIN_IN_STRINGS = re.compile(rb'[^"\\]*')


@dataclass(frozen=True)
class Reading:
    """Where a parser is in JSON that a grammar has let through, so that no more is told apart than is needed here.

    Attributes:
        depth: Objects and arrays that are open.
        in_string: Whether it is inside a string.
        escaped: Whether the last byte was a backslash that escapes the next.
        number: The end of the text, as far as it may be of one number.
    """

    depth: int = 0
    in_string: bool = False
    escaped: bool = False
    number: bytes = b""

    def after(self, data: bytes) -> Reading | None:
        """Return where it is after more text, None if that text has what no parser would read.

        Example:
            >>> Reading().after(b'{"price": 1e9').after(b"99") is None
            True
        """
        if self.in_string and not self.escaped and _PLAIN_IN_STRINGS.fullmatch(data):
            return self
        depth, in_string, escaped, number = self.depth, self.in_string, self.escaped, self.number
        for byte in data:
            if in_string:
                in_string, escaped = escaped or byte != ord('"'), not escaped and byte == ord("\\")
                continue
            number = number + bytes([byte]) if byte in _NUMERIC else b""
            in_string = byte == ord('"')
            depth += (byte in _OPENING) - (byte in _CLOSING)
            if depth > MOST_DEPTH or len(number) > MOST_CHARACTERS or _OVERFLOWS.search(number):
                return None
        return Reading(depth, in_string, escaped, number)
