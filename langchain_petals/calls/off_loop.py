"""Keep slow work off the event loop: loading, rendering, tokenizing, compiling grammars."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from langchain_core.runnables import run_in_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from langchain_petals.pieces import Piece

_Begun = TypeVar("_Begun")
_Chunk = TypeVar("_Chunk")


async def begun_off_loop(
    begin: Callable[[], Sequence[_Begun]],
    cancel: Callable[[_Begun], object],
    expecting: AbstractContextManager[None],
) -> Sequence[_Begun]:
    """Begin generations on another thread, inside the context `expecting`; see `Engine.expecting`.

    A thread cannot be interrupted. If the task is cancelled, each generation is cancelled once all have begun.
    """
    outcome: Future[Sequence[_Begun]] = Future()

    with expecting:
        try:
            await run_in_executor(None, lambda: outcome.set_result(begin()))
        except asyncio.CancelledError:
            outcome.add_done_callback(lambda done: [cancel(item) for item in done.result()])
            raise
    return outcome.result()


async def added_off_loop(add: Callable[[Piece], _Chunk], piece: Piece) -> _Chunk:
    """Return `add(piece)`; the last piece is added on another thread, since the complete answer is checked then."""
    return add(piece) if piece.finish_reason is None else await run_in_executor(None, add, piece)
