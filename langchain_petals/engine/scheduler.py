"""Requests that wait together run together."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from langchain_petals.engine.generation import failing
from langchain_petals.engine.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.settings import Settings

Group = list["Generation"]

# Until its prompt is fed, a row that is longer than its companions gets one token a step where it could have had many
# at once: each such step costs it a round trip. It may cost a quarter of the steps that it takes anyway, and no more
# than this many, since answers are often shorter than they may be. See docs/engine.md for the measurements.
LENGTH_SPREAD = 32
_SHARE_OF_STEPS = 4

# A burst of requests comes one by one (asyncio.gather, threads): the window is extended by each, up to this many times.
_LONGEST_BURST = 20


class Scheduler:
    """Collects requests for a moment and puts those that fit together into groups.

    A group that cannot be started, or whose run raises, gets the error; it touches no other, and no later request.

    Args:
        run: Runs one group to its end; called on a thread of its own.
    """

    def __init__(self, run: Callable[[Group, Settings], None]) -> None:
        self._run = run
        self._waiting: list[tuple[Generation, Settings]] = []
        self._arrived = threading.Condition()
        self._collecting = False
        self._coming = 0

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """Let requests that wait already wait for one that is being made, too."""
        with self._arrived:
            self._coming += 1
        try:
            yield
        finally:
            with self._arrived:
                self._coming -= 1
                self._arrived.notify()

    def put(self, generations: Sequence[Generation], settings: Settings) -> None:
        """Queue requests; they start within the batch window, or when a batch is full.

        Raises:
            RuntimeError: No thread can be started (MemoryError: nor is there memory for it); nothing was queued.
        """
        with self._arrived:
            if not self._collecting:
                # before anything else: where no thread can be started, nothing is left that waits for one
                start_thread(self._collect, settings.batch_window / 1000, settings.max_batch_size)
                self._collecting = True
            self._waiting += [(generation, settings) for generation in generations]
            self._arrived.notify()

    def _collect(self, window: float, full: int) -> None:
        collected: Group = []
        with failing(collected):
            with self._arrived:
                try:
                    self._await_company(window, full)
                finally:  # whatever happens, the next request is collected again
                    waiting, self._waiting = self._waiting, []
                    self._collecting = False
                    collected += [generation for generation, _ in waiting]
            groups = _compatible(waiting)
            for settings, group in groups[:-1]:
                with failing(group):
                    start_thread(self._run_group, group, settings)
            for settings, group in groups[-1:]:
                self._run_group(group, settings)

    def _await_company(self, window: float, full: int) -> None:
        latest = time.monotonic() + _LONGEST_BURST * window
        seen = 0
        while (seen < len(self._waiting) or self._coming) and len(self._waiting) < full:
            if time.monotonic() >= latest:
                break
            seen = len(self._waiting)
            self._arrived.wait_for(lambda: len(self._waiting) > seen, window)  # noqa: B023 - called at once

    def _run_group(self, group: Group, settings: Settings) -> None:
        with failing(group):
            self._run(group, settings)


def _compatible(waiting: Sequence[tuple[Generation, Settings]]) -> list[tuple[Settings, Group]]:
    """Group requests that have equal settings and prompts of similar length."""
    by_settings: dict[Settings, Group] = {}
    for generation, settings in waiting:
        by_settings.setdefault(settings, []).append(generation)
    groups: list[tuple[Settings, Group]] = []
    for settings, generations in by_settings.items():
        groups += [(settings, group) for group in _similar(generations, settings.max_batch_size)]
    return groups


def _similar(generations: Sequence[Generation], most: int) -> list[Group]:
    groups: list[Group] = []
    for generation in sorted(generations, key=lambda each: len(each.request.prompt_ids)):
        if not groups or len(groups[-1]) == most or not _fits(generation.request, groups[-1][0].request):
            groups.append([])
        groups[-1].append(generation)
    return groups


def _fits(request: Request, shortest: Request) -> bool:
    longer = len(request.prompt_ids) - len(shortest.prompt_ids)
    return longer <= min(LENGTH_SPREAD, request.max_new_tokens // _SHARE_OF_STEPS)
