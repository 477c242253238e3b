"""Groups requests that arrive together, so that they share a session."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from langchain_petals.engine.generation import failing
from langchain_petals.engine.threads import NO_THREAD, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.settings import Settings

Group = list["Generation"]

# Where it is not known what steps cost: if a prompt is longer than the shortest of its session, each further token
# costs a step, so a round trip. Alone, the prompt would be sent in one message. So it may be longer by a quarter of
# `max_new_tokens`, but by this many tokens at most, since answers are often shorter than their limit.
LENGTH_SPREAD = 32
_SHARE_OF_STEPS = 4

# A burst of requests comes one by one (asyncio.gather, threads): each one extends the window, up to this many times.
_LONGEST_BURST = 20


def _no_plan(generations: Group, settings: Settings) -> None:
    """Leave it to the lengths."""


class Scheduler:
    """Collects requests for the batch window, and runs those that fit together as a group.

    Args:
        run: Runs one group to its end, on a new thread. If it raises, only the requests of its group get the error.
            If the system has no more threads, the rest of the groups that came together run one after the other.
        divide: Divides requests of equal settings into groups; None where too little is known, and by default. Then
            prompts of similar length form a group.
    """

    def __init__(
        self, run: Callable[[Group, Settings], None], divide: Callable[[Group, Settings], list[Group] | None] = _no_plan
    ) -> None:
        self._run, self._divide = run, divide
        self._waiting: list[tuple[Generation, Settings]] = []
        self._arrived = threading.Condition()
        self._collecting = False
        self._coming = 0

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """Let waiting requests also wait for one that is being prepared in the block."""
        with self._arrived:
            self._coming += 1
        try:
            yield
        finally:
            with self._arrived:
                self._coming -= 1
                self._arrived.notify()

    def put(self, generations: Sequence[Generation], settings: Settings) -> None:
        """Queue requests; they start when the batch window ends or a batch is full.

        Raises RuntimeError or MemoryError if no thread can be started; nothing is queued then.
        """
        with self._arrived:
            if not self._collecting:
                # before requests are queued, since starting a thread may fail
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
                finally:  # after an error, too, the next request has to start a new collection
                    waiting, self._waiting = self._waiting, []
                    self._collecting = False
                    collected += [generation for generation, _ in waiting]
            groups = _compatible(waiting, self._divide)
            without_thread = groups[-1:]  # this thread runs it
            for settings, group in groups[:-1]:
                try:
                    start_thread(self._run_group, group, settings)
                except NO_THREAD:  # one session for all would have needed no further thread, so none fails for that
                    without_thread.append((settings, group))
            for settings, group in without_thread:
                self._run_group(group, settings)

    def _await_company(self, window: float, full: int) -> None:
        latest = time.monotonic() + _LONGEST_BURST * window
        seen = 0
        while (seen < len(self._waiting) or self._coming) and len(self._waiting) < full and time.monotonic() < latest:
            seen = len(self._waiting)
            self._arrived.wait_for(lambda: len(self._waiting) > seen, window)  # noqa: B023 - called at once

    def _run_group(self, group: Group, settings: Settings) -> None:
        with failing(group):
            self._run(group, settings)


def _compatible(
    waiting: Sequence[tuple[Generation, Settings]], divide: Callable[[Group, Settings], list[Group] | None] = _no_plan
) -> list[tuple[Settings, Group]]:
    """Group requests that have equal settings."""
    equal: dict[Settings, Group] = {}
    for generation, settings in waiting:
        equal.setdefault(settings, []).append(generation)
    return [
        (settings, group)
        for settings, generations in equal.items()
        for group in divide(generations, settings) or _of_similar_length(generations, settings)
    ]


def _of_similar_length(generations: Group, settings: Settings) -> list[Group]:
    groups: list[Group] = []
    for generation in sorted(generations, key=lambda each: len(each.request.prompt_ids)):
        group = groups[-1] if groups else []
        if not group or len(group) == settings.max_batch_size or not _fits(generation.request, group[0].request):
            group = []
            groups.append(group)
        group.append(generation)
    return groups


def _fits(request: Request, shortest: Request) -> bool:
    longer = len(request.prompt_ids) - len(shortest.prompt_ids)
    return longer <= min(LENGTH_SPREAD, request.max_new_tokens // _SHARE_OF_STEPS)
