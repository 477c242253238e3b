"""What may take long is kept off the event loop: loading, rendering, tokenizing, compiling grammars."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol, TypeVar

from langchain_core.runnables import run_in_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from langchain_petals.pieces import Piece

_Begun = TypeVar("_Begun")
_Chunk_co = TypeVar("_Chunk_co", covariant=True)


async def begun_off_loop(
    begin: Callable[[], Sequence[_Begun]],
    cancel: Callable[[_Begun], object],
    expecting: AbstractContextManager[None],
) -> Sequence[_Begun]:
    """Begin generations on another thread.

    A thread cannot be interrupted: when the task is cancelled meanwhile, what the thread begins is cancelled as soon as
    it has.

    Args:
        begin: Begins them.
        cancel: Cancels one of them.
        expecting: Holds meanwhile; see `Engine.expecting`.
    """
    outcome: Future[Sequence[_Begun]] = Future()

    def work() -> Sequence[_Begun]:
        items = begin()
        outcome.set_result(items)
        return items

    with expecting:
        try:
            return await run_in_executor(None, work)
        except asyncio.CancelledError:
            outcome.add_done_callback(lambda done: [cancel(item) for item in done.result()])
            raise


class _Answer(Protocol[_Chunk_co]):
    """What pieces come together in."""

    def add(self, piece: Piece) -> _Chunk_co:
        """Take a piece; return what it adds."""


async def added_off_loop(answer: _Answer[_Chunk_co], piece: Piece) -> _Chunk_co:
    """Add a piece to an answer; the last one on another thread: what the whole is worth takes longer to find out.

    Args:
        answer: Takes the piece.
        piece: What one step brought.
    """
    return answer.add(piece) if piece.finish_reason is None else await run_in_executor(None, answer.add, piece)
