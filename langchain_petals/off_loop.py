"""What may take long is kept off the event loop: loading, rendering, tokenizing, compiling grammars."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from langchain_core.runnables import run_in_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

_Begun = TypeVar("_Begun")


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
