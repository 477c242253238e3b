"""The three ways to structured output: a schema for the answer, a tool that must be called, JSON of any kind."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas import json_schema_of

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured(
    model: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, strict: bool | None, **kwargs: Any
) -> Runnable[Any, Any]:
    """Return a model whose answers are objects; see `ChatPetals.with_structured_output`."""
    if schema is None and method != "json_mode":
        msg = f'method={method!r} needs a schema; give one, or method="json_mode" for JSON of any kind'
        raise InvalidRequestError(msg)
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    if schema is not None:  # for tracing
        kwargs["ls_structured_output_format"] = {
            "kwargs": {"method": method, "strict": strict},
            "schema": convert_to_json_schema(schema),
        }
    bound: Runnable[Any, Any]
    parser: Runnable[Any, Any]
    if method == "function_calling":
        name = convert_to_openai_tool(schema)["function"]["name"]
        bound = model.bind_tools([schema], tool_choice=name, parallel_tool_calls=False, strict=strict, **kwargs)
        parser = (
            PydanticToolsParser(tools=[schema], first_tool_only=True)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    elif method in ("json_schema", "json_mode"):
        bound = model.bind(response_format=_response_format(schema, method, strict=strict), **kwargs)
        parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()
    else:
        msg = f'method={method!r} is none of "json_schema", "function_calling" and "json_mode"'
        raise InvalidRequestError(msg)
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _response_format(schema: Any, method: Method, *, strict: bool | None) -> dict[str, Any]:
    if method == "json_mode":
        return {"type": "json_object"}
    name = convert_to_json_schema(schema).get("title", "answer")
    described = {"name": name, "schema": json_schema_of(schema)} | ({} if strict is None else {"strict": strict})
    return {"type": "json_schema", "json_schema": described}
