"""Errors without the frames that they passed through.

Most frames between a call and its error belong to the engine's threads, pydantic, jinja2 or hivemind, and do not help
the caller. The text of each `PetalsError` says what happened. Errors of other types are bugs, and keep all frames.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_petals.errors import PetalsError, PetalsNotInstalledError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

logger = logging.getLogger("langchain_petals.tracebacks")

_Error = TypeVar("_Error", bound=PetalsError)
_Function = TypeVar("_Function", bound="Callable[..., Any]")


def without_frames(error: _Error) -> _Error:
    """Return a copy of an error without frames and causes, which are logged at level DEBUG.

    It is a copy, since the error of a session may end several calls, and each adds its own frames. The cause of a
    `PetalsNotInstalledError` is kept, since its frames show which package cannot be imported.
    """
    logger.debug("%s came from here:", type(error).__name__, exc_info=error)
    plain = copy.copy(error)
    if isinstance(error, PetalsNotInstalledError):
        plain.__cause__ = error.__cause__
    return plain


def short_traceback(function: _Function) -> _Function:
    """Decorate a function or generator, async or not: each `PetalsError` that it raises has one frame only."""
    if inspect.isasyncgenfunction(function):
        wrapper: Any = _async_generator(function)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function)
    else:
        wrapper = _plain(function)
    functools.update_wrapper(wrapper, function)
    shortened: _Function = wrapper
    return shortened


# Each wrapper raises the short error outside of `except`, where Python would set the long one as its context. It then
# deletes its variable: the error's traceback holds the frame, so there would be a cycle.


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PetalsError as error:
            short = without_frames(error)
        try:
            raise short
        finally:
            del short

    return call


def _coroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except PetalsError as error:
            short = without_frames(error)
        try:
            raise short
        finally:
            del short

    return call


def _generator(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from function(*args, **kwargs)
        except PetalsError as error:
            short = without_frames(error)
        else:
            return
        try:
            raise short
        finally:
            del short

    return call


def _async_generator(function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        except PetalsError as error:
            short = without_frames(error)
        else:
            return
        try:
            raise short
        finally:
            del short

    return call
