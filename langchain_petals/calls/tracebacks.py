"""Errors without the frames that they came through.

Most frames between a call and what went wrong are of the engine's threads, of pydantic, jinja2 or hivemind, and say
nothing to whoever made the call. The text of each `PetalsError` says what happened. Errors of other types are faults of
the program, and keep all they have.
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
    """Return an error like another one, with neither frames nor causes; these are logged at level DEBUG.

    It is another object, since several calls may wait for the one that ended a session, each with frames of its own.
    Only of a package that cannot be imported the cause is kept: its frames show which one is at fault.
    """
    logger.debug("%s came from here:", type(error).__name__, exc_info=error)
    plain = copy.copy(error)
    if isinstance(error, PetalsNotInstalledError):
        plain.__cause__ = error.__cause__
    return plain


def short_traceback(function: _Function) -> _Function:
    """Let a function, a generator or an async one of these raise each `PetalsError` from one frame only."""
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


# Each raises outside of its `except`, where Python would hang the long one on the short one as its context, and lets go
# of it, since the frame that raises it is part of its traceback.


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
