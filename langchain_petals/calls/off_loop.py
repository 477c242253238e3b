"""Keep slow work off the event loop: loading, rendering, tokenizing, compiling grammars."""

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

    A thread cannot be interrupted. If the task is cancelled meanwhile, the generations are cancelled once they have
    begun.

    Args:
        begin: Begins the generations.
        cancel: Cancels one generation.
        expecting: Context that is entered meanwhile; see `Engine.expecting`.
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
    """Joins pieces to an answer."""

    def add(self, piece: Piece) -> _Chunk_co:
        """Add a piece; return the chunk for it."""


async def added_off_loop(answer: _Answer[_Chunk_co], piece: Piece) -> _Chunk_co:
    """Add a piece to an answer, and return the chunk for it.

    The last piece is added on another thread, since the complete answer is checked then, which takes longer.

    Args:
        answer: Joins the pieces.
        piece: The result of one step.
    """
    return answer.add(piece) if piece.finish_reason is None else await run_in_executor(None, answer.add, piece)
