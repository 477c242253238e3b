"""Conversion of tools to OpenAI's format, and the JSON schemas of their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.tools import Tool as PlainTool
from langchain_core.tools.base import get_all_basemodel_annotations
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json_schema import dereference_refs
from pydantic import BaseModel, create_model
from pydantic.errors import PydanticUserError

from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import schema_check, schema_rule
from langchain_petals.schemas import (
    DEFINITIONS,
    PARAMETERS,
    closed,
    contains_itself,
    is_schema_class,
    schema_of_class,
    without_titles,
)

if TYPE_CHECKING:
    from langchain_petals.grammars import SchemaRule

Tool = dict[str, Any]
"""A tool in OpenAI's format: `{"type": "function", "function": {"name": ..., "parameters": <JSON schema>}}`."""


def openai_tools(tools: Any, *, strict: bool | None = None) -> list[Tool]:
    """Return tools in OpenAI's format; see `openai_tool`.

    Raises:
        InvalidRequestError: This is not a list, or one of them is not a tool.
    """
    if not isinstance(tools, Iterable) or isinstance(tools, str | bytes | Mapping):
        msg = f"tools: a list of tools is needed (got {tools!r})"
        raise InvalidRequestError(msg)
    return [openai_tool(tool, strict=strict) for tool in tools]


def openai_tool(tool: Any, *, strict: bool | None = None) -> Tool:
    """Return a tool in OpenAI's format.

    Args:
        tool: A function, a pydantic class, a TypedDict, a LangChain tool, a JSON schema with a title, or a dictionary
            in the format of OpenAI, Anthropic or the Model Context Protocol.
        strict: Whether arguments have no other properties than the schema names; None leaves it to the tool.

    Raises:
        InvalidRequestError: It is none of these. Tools that only run on a provider's servers are refused, too.
    """
    found = _from_dictionary(tool) if isinstance(tool, dict) else _from_object(tool)
    function = found.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _no_tool(tool)
    if not isinstance(function.get("parameters") or {}, dict):
        msg = f"the parameters of tool {function['name']!r} are no JSON schema: {function['parameters']!r}"
        raise InvalidRequestError(msg)
    kind = (function.get("parameters") or {}).get("type", "object")
    if kind != "object" and "object" not in kind:
        msg = (
            f"the parameters of tool {function['name']!r} are of type {kind!r}, and arguments are an object; make that "
            "a property of one"
        )
        raise InvalidRequestError(msg)
    if strict is None:
        return found
    said = function.get("strict")
    if said not in (None, strict):
        msg = f"strict={strict} contradicts tool {function['name']!r}, which says {said}; leave out one"
        raise InvalidRequestError(msg)
    return {**found, "function": {**function, "strict": strict}}


def _from_dictionary(tool: dict[str, Any]) -> dict[str, Any]:
    """Convert a dictionary to OpenAI's format."""
    if "function" in tool:
        return tool
    parameters = next((tool[key] for key in PARAMETERS if key in tool), None)
    described = {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
    name = tool.get("name", tool.get("title"))
    if parameters is None:
        if tool.get("type", "object") != "object":  # like {"type": "bash", "name": "bash"}
            raise _no_tool(tool)
        parameters = {key: value for key, value in tool.items() if key not in ("name", "title", *described)}
    if name is None:
        msg = f"{tool!r} has no name; put a top-level 'title' beside the schema, or 'name' beside 'parameters'"
        raise InvalidRequestError(msg)
    schema = {"parameters": parameters} if parameters else {}
    return {"type": "function", "function": {"name": name, **described, **schema}}


def _from_object(tool: Any) -> dict[str, Any]:
    """Convert a function, a class or a LangChain tool to OpenAI's format."""
    try:
        schema = _schema_of(tool)
        found = _from_class(schema or {}) if is_schema_class(tool) else convert_to_openai_tool(tool)
    except (ValueError, PydanticUserError, AttributeError) as error:  # the message says what is missing
        msg = f"{tool!r} cannot be a tool: {error}"
        raise InvalidRequestError(msg) from error
    if schema is not None:
        if not contains_itself(schema):  # easier to read, and the same as LangChain does
            schema = {key: value for key, value in dereference_refs(schema).items() if key not in DEFINITIONS}
        parameters = without_titles(schema)
        parameters.pop("description", None)  # the tool has it
        found["function"]["parameters"] = parameters
    return found


def _from_class(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with the name and the description of a class; LangChain takes a dataclass for a function."""
    return {"type": "function", "function": {"name": schema["title"], "description": schema.get("description", "")}}


def _schema_of(tool: Any) -> dict[str, Any] | None:
    """Return the JSON schema of the arguments of a function, a LangChain tool or a class; None if LangChain's is used.

    LangChain's own conversion ignores aliases and the keys of maps, and allows anything in classes that contain
    themselves.
    """
    if isinstance(tool, BaseTool):
        if isinstance(tool, PlainTool) and not tool.args_schema:  # takes one string
            return None
        tool = _arguments_of(tool)
    elif inspect.isroutine(tool):
        tool = create_schema_from_function(
            tool.__name__,
            tool,
            filter_args=(),
            parse_docstring=True,
            error_on_invalid_docstring=False,
            include_injected=False,
        )
    if isinstance(tool, dict):
        return tool
    return schema_of_class(tool) if is_schema_class(tool) else None


def _arguments_of(tool: BaseTool) -> Any:
    """Return the class that validates a tool's arguments, without the arguments that LangChain injects."""
    for_model, complete = tool.tool_call_schema, tool.args_schema
    if isinstance(for_model, dict) or not isinstance(complete, type) or not issubclass(complete, BaseModel):
        return for_model
    # LangChain ignores fields with a `validation_alias`; the fields that it knows but leaves out are injected
    injected = get_all_basemodel_annotations(complete).keys() - get_all_basemodel_annotations(for_model).keys()
    fields: Any = {
        name: (field.annotation, field) for name, field in complete.model_fields.items() if name not in injected
    }
    if len(fields) == len(complete.model_fields):
        return complete
    return create_model(complete.__name__, __config__=complete.model_config, **fields)


def _no_tool(tool: Any) -> InvalidRequestError:
    return InvalidRequestError(
        f"{tool!r} is no tool that this model could call: give a function, a pydantic class, a TypedDict, a LangChain "
        'tool, or {"type": "function", "function": {"name": ..., "description": ..., "parameters": <JSON schema>}}'
    )


def arguments_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a function's arguments.

    Objects in it are closed (see `closed`), unless `strict` is False.

    Args:
        function: The `function` of a tool in OpenAI's format.
    """
    parameters = (function.get("parameters") or {}) | {"type": "object"}
    if parameters.keys().isdisjoint({"allOf", "anyOf", "oneOf", "$ref"}):
        parameters = {"properties": {}} | parameters  # no arguments
    return parameters if function.get("strict") is False else closed(parameters)


def arguments_rule(function: Mapping[str, Any]) -> SchemaRule:
    """Return a function's arguments as an expression in a Lark rule, with the keywords that it does not enforce.

    Args:
        function: The `function` of a tool in OpenAI's format.

    Raises:
        InvalidRequestError: It is strict, and no grammar can enforce its whole schema; names the tool.
    """
    strict = function.get("strict") is True
    return schema_rule(arguments_schema(function), f"the schema of tool {function['name']!r}", strict=strict)


def argument_problem(tools: Iterable[Tool], name: str, arguments: Mapping[str, Any]) -> str | None:
    """Return why the arguments of a call break a keyword that the grammar does not enforce; None if they do not.

    Args:
        tools: The tools that may be called.
        name: Name of the called tool; if several have it, the arguments must fit one of them.
        arguments: The arguments.
    """
    problems: list[str | None] = []
    for function in (tool["function"] for tool in tools if tool["function"]["name"] == name):
        check = schema_check(arguments_schema(function)) if arguments_rule(function).left_out else None
        problems.append(None if check is None else check.problem(arguments))
    return None if not problems or None in problems else f"its arguments break the schema of the tool: {problems[0]}"
