"""What one render of a chat template may use, counted: processor time, characters, sizes of values and numbers."""

from __future__ import annotations

import time
from typing import Any

import jinja2

# Processor time of one render, in seconds; a conversation of a thousand messages takes some 0.02.
TIME_LIMIT = 0.3

_LARGEST_NUMBER_BITS = 4096
_VISITS_BETWEEN_CHECKS = 1000


class TemplateLimitError(jinja2.TemplateRuntimeError):
    """A template asked for more time or memory than a prompt can need."""


class Meter:
    """Counts what one render uses, and ends it when that is too much.

    Args:
        characters: How many characters the render may produce, intermediate ones included.
        seconds: Processor time that it may take. (Not time by the clock: a busy machine must not fail a render.)
    """

    def __init__(self, characters: int, seconds: float = TIME_LIMIT) -> None:
        self._left = characters
        self._largest = characters
        self._end = time.thread_time() + seconds
        # The containers measured so far, kept alive so that ids stay theirs. None can change: templates may not.
        self._sizes: dict[int, tuple[Any, int]] = {}

    def spend(self, characters: int = 0) -> None:
        """Record that so many characters were, or are about to be, produced."""
        if characters > self._left:
            msg = "the chat template produces too much text"
            raise TemplateLimitError(msg)
        self._left -= characters
        if time.thread_time() > self._end:
            msg = "the chat template takes too long"
            raise TemplateLimitError(msg)

    def charge(self, value: Any) -> Any:
        """Record a value that was just made, and return it."""
        if isinstance(value, str):
            self.spend(len(value))
        elif isinstance(value, (list, tuple, dict)):
            self.spend(8 * len(value))
            self.size(value)
        elif isinstance(value, int):
            self.check_bits(value.bit_length())
            self.spend()
        else:
            self.spend()
        return value

    @staticmethod
    def check_bits(bits: float) -> None:
        """Refuse a number that is longer than any that a template has a use for."""
        if bits > _LARGEST_NUMBER_BITS:
            msg = "the chat template computes too large a number"
            raise TemplateLimitError(msg)

    def size(self, value: Any) -> int:
        """Return how long a value is when it is written out: a container counts as often as it is referred to.

        Lists that hold the previous list twice double with every step while they take no memory; written out or
        compared they do.
        """
        total, visits, waiting = 0, 0, [value]
        while waiting:
            item = waiting.pop()
            visits += 1
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, (list, tuple, dict)):
                known = self._sizes.get(id(item))
                if known is not None:
                    total += known[1]
                else:
                    total += 8
                    waiting += item
                    if isinstance(item, dict):
                        waiting += item.values()
            else:
                total += 8
            if total > self._largest:
                msg = "the chat template builds too large a value"
                raise TemplateLimitError(msg)
            if visits % _VISITS_BETWEEN_CHECKS == 0:
                self.spend()
        if isinstance(value, (list, tuple, dict)):
            self._sizes[id(value)] = value, total
        return total
