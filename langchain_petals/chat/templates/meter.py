"""Limits of one render of a chat template: processor time, characters, sizes of values and numbers."""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterable, Iterator, KeysView, ValuesView
from typing import Any

import jinja2

# Processor time of one render, in seconds; a conversation of a thousand messages takes some 0.02.
TIME_LIMIT = 0.3
# A step that took more seconds than `_PAUSE` was interrupted; the first `_MOST_PAUSES` of them do not count.
_PAUSE, _MOST_PAUSES = 0.05, 3
# Limits of the characters that one render may produce, and that one value may have: a base, and an addition for each
# character of the input.
_TOTAL = 16_000_000, 64
_VALUE = 250_000, 8

_LARGEST_NUMBER_BITS = 4096
_VISITS_BETWEEN_CHECKS = 1000
_CONTAINERS = (list, tuple, dict, KeysView, ValuesView, ItemsView)


class TemplateLimitError(jinja2.TemplateRuntimeError):
    """A template asked for more time or memory than a prompt can need."""


def refuse_if(condition: object, problem: str) -> None:
    """Raise `TemplateLimitError` if the condition is true; `problem` is a predicate: its subject is the template."""
    if condition:
        msg = f"the chat template {problem}"
        raise TemplateLimitError(msg)


class Meter:
    """Counts what one render uses, and ends the render when that is too much.

    The clock is checked between the steps of a render, so no step may be long. Most steps take time in proportion to
    the values that they read and make: `charge` bounds these. A step that can make far more than it reads calls
    `expect` first. Processor time is limited, not wall-clock time: a busy machine must not fail a render. The garbage
    collector may run in any step, and take longer than a whole render. So a few long steps do not count.
    """

    def __init__(self, variables: Any) -> None:
        self._now = time.thread_time()
        self._end = self._now + TIME_LIMIT
        self._pauses = _MOST_PAUSES
        # Measured containers and their sizes, by id. Templates cannot change them, and no id is reused while they live.
        self._sizes: dict[int, tuple[Any, int]] = {}
        self._left = self._largest = 2**60
        size = self.size(variables)
        self._left, self._largest = (base + factor * size for base, factor in (_TOTAL, _VALUE))

    def expect(self, characters: int) -> None:
        """Refuse a step that would make more than the render may still produce."""
        refuse_if(characters > self._left, "produces too much text")

    def spend(self, characters: int = 0) -> None:
        """Record a step and the characters that it produces, and check the time."""
        self.expect(characters)
        self._left -= characters
        before, self._now = self._now, time.thread_time()
        if self._now - before > _PAUSE and self._pauses:
            self._pauses -= 1
            self._end += self._now - before
        refuse_if(self._now > self._end, "takes too long")

    def rounds(self, items: Iterable[Any]) -> Iterator[Any]:
        """Iterate over items, and check the time before each."""
        for item in items:
            self.spend()
            yield item

    def charge(self, value: Any) -> Any:
        """Record a value that was just made, and return it; an iterator as a list, since it has no size."""
        if isinstance(value, Iterator):
            value = list(self.rounds(value))
        size = self.size(value)
        self.spend(8 * len(value) if isinstance(value, _CONTAINERS) else size)
        if isinstance(value, int):
            self.check_bits(value.bit_length())
        return value

    @staticmethod
    def check_bits(bits: float) -> None:
        """Refuse a number that is longer than a template needs."""
        refuse_if(bits > _LARGEST_NUMBER_BITS, "computes too large a number")

    def size(self, value: Any) -> int:
        """Return how long a value is when it is written out: a container counts as often as it is referred to.

        If each list holds the previous list twice, the size doubles with every step. The lists take little memory until
        they are written out or compared. A value that is larger than a prompt needs is refused.
        """
        total, visits, waiting = 0, 0, [value]
        while waiting:
            item = waiting.pop()
            visits += 1
            if isinstance(item, str):
                total += len(item)
            elif id(item) in self._sizes:
                total += self._sizes[id(item)][1]
            else:
                total += 8 + (item.bit_length() // 3 if isinstance(item, int) else 0)
                if isinstance(item, _CONTAINERS):
                    waiting += item
                if isinstance(item, dict):
                    waiting += item.values()
            refuse_if(total > self._largest, "builds too large a value")
            if visits % _VISITS_BETWEEN_CHECKS == 0:
                self.spend()
        if isinstance(value, _CONTAINERS):
            self._sizes[id(value)] = value, total
        return total
