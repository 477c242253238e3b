"""The handle of a submitted request: an iterable and async iterable of pieces, cancellable."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING

from langchain_petals.engine.threads import program_ends
from langchain_petals.errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from langchain_petals.engine.request import Request
    from langchain_petals.pieces import Piece, Pieces


class Generation:
    """A request that was submitted.

    Iterate over it once, with `for` or `async for`. Leaving the loop early cancels the request: its row is dropped
    before the next step, and the session is closed when it has no other row.

    Args:
        request: The request.

    Attributes:
        of_batch: Whether it came together with others.
        reused_tokens: Tokens of the prompt that an idle session already held; set before the first piece.
        trips: Steps through the swarm that were made for this request, those of the prompt included. Rows of one
            session share their steps, and each counts all of them. The counts are final with the last piece.
        forced_tokens: Tokens that were taken without a trip of their own, because a grammar allowed no other.
        drafted_tokens: Tokens that were guessed and sent along with a step, to see whether the model chooses them.
        accepted_tokens: The drafted tokens that the model chose. Most of them saved a trip: not the one that ended the
            answer, nor one after which a grammar forced more than the draft had.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self._events: queue.SimpleQueue[Piece | BaseException] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._notify: Callable[[], object] | None = None
        self._generated = 0
        self.of_batch = False
        self.reused_tokens = 0
        self.trips = 0
        self.forced_tokens = 0
        self.drafted_tokens = 0
        self.accepted_tokens = 0
        self._deadline = None if request.timeout is None else time.monotonic() + request.timeout

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    # ---- for the engine

    @property
    def cancelled(self) -> bool:
        """Whether no caller waits any more: it was cancelled, its deadline has passed, or the program ends."""
        return self._cancelled.is_set() or self._remaining() == 0 or program_ends()

    def put(self, event: Piece | BaseException) -> None:
        """Pass a piece, or the error that ends the generation, to the caller.

        When the program ends, only daemon threads can still wait. They get nothing, since they could only print it.
        """
        if program_ends():
            return
        self._events.put(event)
        notify = self._notify
        if notify is not None:
            try:
                notify()
            except RuntimeError:  # the caller's event loop is closed
                self.cancel()

    # ---- for the caller

    def cancel(self) -> None:
        """Drop the request's row before the next step; other rows go on."""
        self._cancelled.set()

    def _remaining(self) -> float | None:
        """Return the seconds left, 0 after the deadline, None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _expired(self) -> DeadlineExceededError:
        return DeadlineExceededError(self.request.timeout or 0.0, self._generated)

    def _accept(self, event: Piece | BaseException) -> Piece:
        if isinstance(event, BaseException):
            raise event
        self._generated = event.generated
        return event

    def __iter__(self) -> Iterator[Piece]:
        """Yield each piece when it is ready; the last one has the finish reason.

        Raises:
            DeadlineExceededError: The request's timeout passed first.
            PetalsError: Another error ended the generation.
        """
        try:
            while True:
                try:
                    piece = self._accept(self._events.get(timeout=self._remaining()))
                except queue.Empty:
                    raise self._expired() from None
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces as `__iter__` does, without occupying a thread."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        self._notify = lambda: loop.call_soon_threadsafe(ready.set)
        try:
            while True:
                ready.clear()
                try:
                    piece = self._accept(self._events.get_nowait())
                except queue.Empty:
                    try:
                        await asyncio.wait_for(ready.wait(), self._remaining())
                    except asyncio.TimeoutError:  # TimeoutError itself only from Python 3.11 on
                        raise self._expired() from None
                    continue
                yield piece
                if piece.finish_reason is not None:
                    return
        finally:
            self.cancel()


@contextlib.contextmanager
def failing(generations: Iterable[Generation]) -> Iterator[None]:
    """Pass an error that the block raises to the callers of these generations; it is not raised here."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - it is raised where the results are awaited
        for generation in generations:
            generation.put(error)


@contextlib.contextmanager
def cancelling(generations: Iterable[Pieces]) -> Iterator[None]:
    """Cancel the generations when the block is left, also by an error."""
    try:
        yield
    finally:
        for generation in generations:
            generation.cancel()
