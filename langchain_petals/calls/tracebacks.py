"""Errors with short tracebacks.

Most frames between a call and its error belong to the engine's threads, pydantic, jinja2 or hivemind, and do not help
the caller. The text of each `PetalsError` says what happened. Errors of other types are bugs, and keep all frames.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_petals.errors import PetalsError, PetalsNotInstalledError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from typing_extensions import Self

logger = logging.getLogger("langchain_petals.tracebacks")

_Error = TypeVar("_Error", bound=PetalsError)
_Function = TypeVar("_Function", bound="Callable[..., Any]")


def without_frames(error: _Error) -> _Error:
    """Return a copy of an error without frames and causes, which are logged at level DEBUG.

    It is a copy, since one session's error may end several calls, and each call adds its own frames. The cause of a
    `PetalsNotInstalledError` is kept, since its frames show which package cannot be imported.
    """
    logger.debug("%s came from here:", type(error).__name__, exc_info=error)
    plain = copy.copy(error)
    if isinstance(error, PetalsNotInstalledError):
        plain.__cause__ = error.__cause__
    return plain


class _Caught(list[PetalsError]):
    """Context manager that catches a `PetalsError`, and holds it without frames."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, PetalsError):
            return False
        self.append(without_frames(error))
        return True


def short_traceback(function: _Function) -> _Function:
    """Decorate a function or generator, async or not: each `PetalsError` that it raises has one frame only."""
    # Each wrapper raises the error after the `with` block: inside, Python would store the original as `__context__`. No
    # variable holds the error then, since its traceback holds the frame, and both would form a reference cycle.

    def call(*args: Any, **kwargs: Any) -> Any:
        with _Caught() as caught:
            return function(*args, **kwargs)
        raise caught.pop()

    async def acall(*args: Any, **kwargs: Any) -> Any:
        with _Caught() as caught:
            return await function(*args, **kwargs)
        raise caught.pop()

    def generate(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with _Caught() as caught:
            yield from function(*args, **kwargs)
        if caught:
            raise caught.pop()

    async def agenerate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        with _Caught() as caught:
            async with contextlib.aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        if caught:
            raise caught.pop()

    wrappers: list[tuple[Callable[[Any], bool], Any]] = [
        (inspect.isasyncgenfunction, agenerate),
        (inspect.iscoroutinefunction, acall),
        (inspect.isgeneratorfunction, generate),
        (callable, call),
    ]
    wrapper = next(wrapper for is_kind, wrapper in wrappers if is_kind(function))
    return cast("_Function", functools.update_wrapper(wrapper, function))
