"""Tools that a command line names as `module:function`: they are imported, and run when the model calls them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from langchain_petals.cli.terminal import SignalledExit
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_core.messages import ToolCall, ToolMessage
    from langchain_core.tools import BaseTool


def tools_named(names: Iterable[str]) -> list[BaseTool]:
    """Import tools; modules are looked for in the current folder, too.

    Args:
        names: Such as "calendar_tools:next_holiday": a module, and a function or LangChain tool of it.

    Returns:
        LangChain tools, in the order of the names.

    Raises:
        InvalidRequestError: There is no such module or function, its import failed, or it cannot become a tool.
    """
    found: dict[str, BaseTool] = {}
    for name in names:
        made = _as_tool(name, _imported(name))
        if made.name in found:
            msg = f"Two tools have the name {made.name!r}, so a call could mean either; leave one out."
            raise InvalidRequestError(msg)
        found[made.name] = made
    return list(found.values())


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    if not module or not function:
        msg = f"{name!r} names no tool; write module:function, such as my_tools:get_weather for my_tools.py here."
        raise InvalidRequestError(msg)
    folder = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # it may have been written a moment ago
    try:
        with _prints_are_notes():
            value: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        where = f"There is no {module}.py in {folder}, nor is it installed."
        reason = where if module.split(".")[0] == missing.split(".")[0] else f"It imports {missing}, which is missing."
        msg = f"The tool {name!r} could not be imported. {reason}"
        raise InvalidRequestError(msg) from error
    except SignalledExit:
        raise
    except (Exception, SystemExit) as error:
        msg = f"The tool {name!r} could not be imported: {_described(error)}"
        raise InvalidRequestError(msg) from error
    for part in function.split("."):
        if not hasattr(value, part):
            msg = f"The module {module!r} has no {function!r}."
            raise InvalidRequestError(msg)
        value = getattr(value, part)
    return value


def _as_tool(name: str, value: Any) -> BaseTool:
    from langchain_core.tools import BaseTool, tool  # noqa: PLC0415 - not needed for `--help`

    if isinstance(value, BaseTool):
        return value
    if isinstance(value, type) or not callable(value):
        msg = f"{name!r} is no function and no LangChain tool, but {type(value).__name__}; it could not be run."
        raise InvalidRequestError(msg)
    try:
        made: BaseTool = tool(value)
    except Exception as error:
        msg = f"{name!r} cannot be a tool: {_described(error)}. It needs a docstring, and types for its arguments."
        raise InvalidRequestError(msg) from error
    return made


def run_tool(tools: Iterable[BaseTool], call: ToolCall) -> ToolMessage:
    """Run a tool that the model has called.

    Args:
        tools: The tools that there are.
        call: The call.

    Returns:
        The result for the model; if the tool raised, its error, with the status "error".
    """
    from langchain_core.messages import ToolMessage  # noqa: PLC0415 - not needed for `--help`

    named = {tool.name: tool for tool in tools}
    try:
        if call["name"] not in named:
            msg = f"there is no tool {call['name']!r}"
            raise KeyError(msg)  # noqa: TRY301 - it is answered like any error of a tool
        with _prints_are_notes():
            answer = _answer_of(named[call["name"]], {**call, "type": "tool_call"})
    except SignalledExit:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the model reads it, and the user sees it
        answer = ToolMessage(
            f"Error: {_described(error)}", tool_call_id=call["id"] or "", name=call["name"], status="error"
        )
    if isinstance(answer, ToolMessage):
        return answer
    return ToolMessage(str(answer), tool_call_id=call["id"] or "", name=call["name"])


def _answer_of(tool: BaseTool, call: ToolCall) -> Any:
    if getattr(tool, "coroutine", None) is not None and getattr(tool, "func", None) is None:  # it has no other way
        return asyncio.run(tool.ainvoke(call))
    return tool.invoke(call)


def _prints_are_notes() -> contextlib.AbstractContextManager[object]:
    """Let what tools print go to the standard error stream: the other one has the answer, and nothing else."""
    return contextlib.redirect_stdout(sys.stderr)


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
