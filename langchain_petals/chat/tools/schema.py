"""Conversion of tools to OpenAI's format, and the JSON schemas of their arguments."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.tools import Tool as PlainTool
from langchain_core.tools.base import get_all_basemodel_annotations
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json_schema import dereference_refs
from pydantic import BaseModel, create_model
from pydantic.errors import PydanticUserError

from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import SchemaRule, schema_check, schema_rule
from langchain_petals.schemas import (
    DEFINITIONS,
    PARAMETERS,
    closed,
    is_schema_class,
    schema_of_class,
    subschemas,
    target_of,
)

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
        strict: Whether arguments may have only the properties that the schema names; None leaves it to the tool.

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
    try:
        schema = _schema_of(tool)
        if schema is not None and is_schema_class(tool):  # LangChain treats a dataclass as a function
            function = {"name": schema["title"], "description": schema.get("description", "")}
            found: Tool = {"type": "function", "function": function}
        else:
            found = convert_to_openai_tool(tool)
    except (ValueError, PydanticUserError, AttributeError) as error:  # the message says what is missing
        msg = f"{tool!r} cannot be a tool: {error}"
        raise InvalidRequestError(msg) from error
    if schema is not None:
        if not _contains_itself(schema):  # inlined, as LangChain does: easier to read
            schema = {key: value for key, value in dereference_refs(schema).items() if key not in DEFINITIONS}
        parameters = copy.deepcopy(schema)
        for _, part in subschemas(parameters):
            part.pop("title", None)  # pydantic adds titles everywhere
        parameters.pop("description", None)  # it is the tool's description
        found["function"]["parameters"] = parameters
    return found


def _contains_itself(schema: Mapping[str, Any]) -> bool:
    """Whether a value that fits a definition of a JSON schema may contain another one that fits it."""
    parts = dict(subschemas(schema))
    references = [(path, target) for path, part in parts.items() if (target := target_of(part, parts)) is not None]
    graph = {target: {inner for path, inner in references if path[: len(target)] == target} for _, target in references}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def _schema_of(tool: Any) -> dict[str, Any] | None:
    """Return the JSON schema of a function's, LangChain tool's or class's arguments; None means to use LangChain's.

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
    # LangChain ignores fields with a `validation_alias`. It injects the fields that it hides from the model.
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
    """Return the JSON schema of a function's arguments; objects in it are closed unless its `strict` is False."""
    parameters = (function.get("parameters") or {}) | {"type": "object"}
    if parameters.keys().isdisjoint({"allOf", "anyOf", "oneOf", "$ref"}):
        parameters = {"properties": {}} | parameters  # no arguments
    return parameters if function.get("strict") is False else closed(parameters)


def arguments_rule(function: Mapping[str, Any]) -> SchemaRule:
    """Return the arguments of an OpenAI function as an expression in a Lark rule.

    Raises:
        InvalidRequestError: No grammar can enforce the schema, or not all of a strict one; the error names the tool.
    """
    strict = function.get("strict") is True
    return schema_rule(arguments_schema(function), f"the schema of tool {function['name']!r}", strict=strict)


def argument_problem(tools: Iterable[Tool], name: str, arguments: Mapping[str, Any]) -> str | None:
    """Return how a call's arguments break keywords that the grammar does not enforce; None if they fit.

    If several tools have this name, the arguments must fit one of them.
    """
    problems: list[str | None] = []
    for function in (tool["function"] for tool in tools if tool["function"]["name"] == name):
        check = schema_check(arguments_schema(function)) if arguments_rule(function).left_out else None
        problems.append(None if check is None else check.problem(arguments))
    return None if not problems or None in problems else f"its arguments break the schema of the tool: {problems[0]}"
