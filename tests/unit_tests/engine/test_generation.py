"""The handle of a request: iteration on threads and event loops, cancellation, deadlines."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request
from langchain_petals.errors import DeadlineExceededError, InvalidRequestError
from langchain_petals.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PIECES = [Piece("a", 1), Piece("", 2), Piece("bc", 3, "length")]


class SwarmIsGoneError(Exception):
    """An error that the engine passes to a generation."""


def asked(timeout: float | None = None) -> Generation:
    return Generation(Request([1], 3, timeout=timeout))


def from_another_thread(generation: Generation, events: Sequence[Piece | BaseException]) -> threading.Thread:
    def put() -> None:
        for event in events:
            generation.put(event)

    thread = threading.Thread(target=put)
    thread.start()
    return thread


async def gathered(generation: Generation) -> list[Piece]:
    return [piece async for piece in generation]


def run_async(generation: Generation) -> list[Piece]:
    return asyncio.run(gathered(generation))


either_way = pytest.mark.parametrize("collect", [list, run_async], ids=["sync", "async"])


@pytest.mark.parametrize(("prompt", "budget"), [([], 1), ([1], 0), ([1], -1)])
def test_empty_prompt_or_budget_is_refused(prompt: list[int], budget: int) -> None:
    with pytest.raises(InvalidRequestError, match="at least one"):
        Request(prompt, budget)


@either_way
def test_pieces_from_before_the_iteration_are_yielded(collect: Callable[[Generation], list[Piece]]) -> None:
    generation = asked()
    for piece in PIECES:
        generation.put(piece)
    assert collect(generation) == PIECES


@either_way
def test_pieces_from_another_thread_are_yielded(collect: Callable[[Generation], list[Piece]]) -> None:
    for _ in range(50):
        generation = asked()
        thread = from_another_thread(generation, PIECES)
        assert collect(generation) == PIECES
        thread.join(10)


@either_way
def test_iteration_ends_with_the_last_piece(collect: Callable[[Generation], list[Piece]]) -> None:
    generation = asked()
    for event in (Piece("a", 1, "stop"), SwarmIsGoneError()):
        generation.put(event)
    assert collect(generation) == [Piece("a", 1, "stop")]
    assert generation.cancelled


@either_way
@pytest.mark.parametrize("before", range(3))
def test_error_is_raised_where_the_result_is_awaited(collect: Callable[[Generation], list[Piece]], before: int) -> None:
    generation = asked()
    thread = from_another_thread(generation, [*PIECES[:before], SwarmIsGoneError()])
    with pytest.raises(SwarmIsGoneError):
        collect(generation)
    thread.join(10)
    assert generation.cancelled


@either_way
def test_deadline_error_tells_how_many_tokens_there_were(collect: Callable[[Generation], list[Piece]]) -> None:
    generation = asked(timeout=0.05)
    generation.put(Piece("a", 1))
    generation.put(Piece("b", 2))
    with pytest.raises(DeadlineExceededError, match=r"0\.05 s passed after 2 generated token") as caught:
        collect(generation)
    assert (caught.value.timeout, caught.value.generated) == (0.05, 2)
    assert generation.cancelled


@either_way
def test_pieces_from_before_the_deadline_are_yielded_after_it(collect: Callable[[Generation], list[Piece]]) -> None:
    generation = asked(timeout=1e-9)
    for piece in PIECES:
        generation.put(piece)
    assert collect(generation) == PIECES


def test_deadline_counts_from_submission() -> None:
    assert asked(timeout=1e-9).cancelled
    assert not asked(timeout=1000).cancelled
    assert not asked().cancelled


# ---- leaving early


def test_cancel_marks_the_generation_as_cancelled() -> None:
    generation = asked()
    generation.cancel()
    assert generation.cancelled


def test_leaving_the_loop_cancels() -> None:
    generation = asked()
    generation.put(PIECES[0])
    for piece in generation:
        assert piece == PIECES[0]
        break
    assert generation.cancelled


def test_dropped_iterator_cancels() -> None:
    generation = asked()
    generation.put(PIECES[0])
    iterator = iter(generation)
    next(iterator)
    assert not generation.cancelled
    del iterator
    assert generation.cancelled


async def test_closed_async_iterator_cancels() -> None:
    generation = asked()
    generation.put(PIECES[0])
    iterator = aiter(generation)
    assert await anext(iterator) == PIECES[0]
    assert not generation.cancelled
    await iterator.aclose()  # type: ignore[attr-defined]
    assert generation.cancelled


async def test_cancelled_task_cancels() -> None:
    generation = asked()
    generation.put(PIECES[0])
    got_one = asyncio.Event()

    async def consume() -> None:
        async for _ in generation:
            got_one.set()

    task = asyncio.create_task(consume())
    await got_one.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert generation.cancelled


async def test_timeout_around_an_iteration_cancels() -> None:
    generation = asked()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(gathered(generation), 0.01)
    assert generation.cancelled


def test_async_iteration_blocks_no_other_task() -> None:
    """Two tasks of a loop wait for each other, so neither may block the loop."""
    first, second = asked(), asked()

    async def forward() -> list[Piece]:
        pieces = []
        async for piece in first:
            pieces.append(piece)
            second.put(piece)
        return pieces

    async def backward() -> list[Piece]:
        first.put(PIECES[0])
        pieces = []
        async for piece in second:
            pieces.append(piece)
            if piece.finish_reason is None:
                first.put(PIECES[len(pieces)])
        return pieces

    async def both() -> list[list[Piece]]:
        return list(await asyncio.gather(forward(), backward()))

    assert asyncio.run(both()) == [PIECES, PIECES]


def test_closed_event_loop_cancels() -> None:
    """A program whose loop ended during a stream must not keep the servers busy."""
    generation = asked()
    generation.put(PIECES[0])
    iterator = aiter(generation)

    async def take_one() -> Piece:
        return await anext(iterator)

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(take_one()) == PIECES[0]
    loop.close()
    assert not generation.cancelled
    generation.put(PIECES[1])
    assert generation.cancelled
