"""The three ways to structured output: a schema for the answer, a tool that must be called, any JSON object."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import RunnableLambda, RunnableMap
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import SkipValidation

from langchain_petals.chat.response_format import PARSED, ResponseFormat
from langchain_petals.chat.tools import arguments_of, openai_tool, problem_of
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import json_grammar
from langchain_petals.schemas import (
    instance_of,
    is_instance_class,
    is_schema_class,
    object_schema_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401 - of a base class; pydantic's mypy plugin looks here

    from langchain_petals.chat.tools import Tool
    from langchain_petals.schemas import ObjectSchema

Method = Literal["json_schema", "function_calling", "json_mode"]

_NAME = "answer"  # of a form that has none
_ANY_JSON = {"type": "json_object"}


def structured(
    model: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    tell: Callable[[Iterable[str]], object],
    **kwargs: Any,
) -> Runnable[Any, Any]:
    """Return a model whose answers are objects; see `ChatPetals.with_structured_output`."""
    if strict is not None and method == "json_mode":
        msg = 'strict does nothing with method="json_mode", which keeps to no schema; leave it out'
        raise InvalidRequestError(msg)
    if schema is None and method != "json_mode":
        msg = f'method={method!r} needs a schema; give one, or method="json_mode" for any JSON object'
        raise InvalidRequestError(msg)
    form = None if schema is None else object_schema_of(schema)
    if form is not None:  # for tracing
        kwargs["ls_structured_output_format"] = {
            "kwargs": {"method": method, "strict": strict},
            "schema": _traced(schema, form),
        }
    if method == "function_calling" and form is not None:
        bound, parser = _by_call(model, schema, form, strict=strict, **kwargs)
    elif method in ("json_schema", "json_mode"):
        bound, parser = _by_answer(model, schema, form, method=method, strict=strict, tell=tell, **kwargs)
    else:
        msg = f'method={method!r} is none of "json_schema", "function_calling" and "json_mode"'
        raise InvalidRequestError(msg)
    if not include_raw:
        return bound | parser

    def parsed(answer: dict[str, Any]) -> dict[str, Any]:
        try:
            return answer | {"parsed": parser.invoke(answer["raw"]), "parsing_error": None}
        except (OutputParserException, OutputLimitError) as error:
            return answer | {"parsed": None, "parsing_error": error}

    # not by fallbacks, which a stream leaves behind with its first chunk
    return RunnableMap(raw=bound) | RunnableLambda(parsed)


_Bound: TypeAlias = "tuple[Runnable[Any, AIMessage], Runnable[AIMessage, Any]]"


def _by_call(model: BaseChatModel, schema: Any, form: ObjectSchema, *, strict: bool | None, **kwargs: Any) -> _Bound:
    """Return a model that has to call a tool which takes the object, and what makes the object of the call."""
    _refuse(kwargs, ("tools", "tool_choice", "parallel_tool_calls", "response_format"), "function_calling")
    tool = openai_tool(schema) if is_schema_class(schema) else _tool(form)
    name = tool["function"]["name"]
    if form.schema.get("type", "object") != "object":
        msg = f'{name!r} is no object, which arguments of a tool have to be; use method="json_schema"'
        raise InvalidRequestError(msg)
    strict = form.strict if strict is None else strict
    choice: Any = {"type": "function", "function": {"name": name}}  # not the name alone, which may be "auto"
    bound = model.bind_tools([tool], tool_choice=choice, parallel_tool_calls=False, strict=strict, **kwargs)
    return bound, _CallParser(key_name=name, first_tool_only=True, kind=_kind(schema))


def _by_answer(
    model: BaseChatModel,
    schema: Any,
    form: ObjectSchema | None,
    *,
    method: Method,
    strict: bool | None,
    tell: Callable[[Iterable[str]], object],
    **kwargs: Any,
) -> _Bound:
    """Return a model whose answers have to be the object, and what makes the object of their text."""
    _refuse(kwargs, ("response_format",), method)
    if method == "json_mode" and form is not None and form.schema.get("type", "object") != "object":
        msg = 'method="json_mode" answers with objects only; use method="json_schema"'
        raise InvalidRequestError(msg)
    response_format = _response_format(form, strict=strict) if method == "json_schema" and form else _ANY_JSON
    response_format = {**response_format, PARSED: True}
    asked = ResponseFormat.of_call({"response_format": response_format})
    if asked.schema is not None:
        json_grammar(asked.schema, strict=asked.strict)  # raises now
        tell(asked.warnings)
    bound = model.bind(response_format=response_format, **kwargs)
    return bound, _AnswerParser(kind=_kind(schema), problem_of=asked.problem_of)


def _kind(schema: Any) -> Any:
    """Return the class that answers are made instances of, if they are."""
    return schema if is_instance_class(schema) else None


class _AnswerParser(JsonOutputParser):
    """Makes an object of an answer's text; nothing of an answer that calls tools instead.

    An answer that the token limit ended early fits its form, too, and is an error all the same.
    """

    kind: Annotated[Any, SkipValidation()] = None
    problem_of: Annotated[Any, SkipValidation()]

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer, or as much as there is of it.

        Raises:
            OutputLimitError: The token limit ended it early.
            OutputParserException: It does not fit, or breaks what could not be guaranteed while it was decoded.
        """
        message, text = _message_of(result), result[0].text
        if message is not None and message.tool_calls:
            return None
        value = super().parse_result(result, partial=partial or _was_cut(message))
        if _was_cut(message):
            raise _ended_early(message, text, value)
        if not partial or (message is not None and "finish_reason" in message.response_metadata):
            problem = None if value is None else self.problem_of(text)
            if problem is not None:
                msg = f"The answer breaks its schema: {problem}. It is {text}"
                raise OutputParserException(msg, llm_output=text)
        return value if self.kind is None or value is None else _made(self.kind, value, partial=partial)


class _CallParser(JsonOutputKeyToolsParser):
    """Makes an object of a call's arguments, once all that it needs is there."""

    kind: Annotated[Any, SkipValidation()] = None

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the arguments; None where there is no call, or not enough of it.

        Raises:
            OutputLimitError: The token limit ended the call early.
            OutputParserException: The arguments do not fit.
        """
        arguments = super().parse_result(result, partial=partial)
        message = _message_of(result)
        if arguments is None and message is not None and message.invalid_tool_calls and not message.tool_calls:
            call = message.invalid_tool_calls[0]
            written, problem = arguments_of(call), problem_of(call)
            text = call["args"] or "" if written is None else json.dumps(written, ensure_ascii=False)
            if _was_cut(message):
                raise _ended_early(message, text, written)
            if "finish_reason" in message.response_metadata:
                msg = f"The model's call of {call['name']!r} is invalid: {problem}. Its arguments are {text}"
                raise OutputParserException(msg, llm_output=text)
        return arguments if self.kind is None or arguments is None else _made(self.kind, arguments, partial=partial)


def _message_of(result: Sequence[Generation]) -> AIMessage | None:
    message = result[0].message if isinstance(result[0], ChatGeneration) else None
    return message if isinstance(message, AIMessage) else None


def _was_cut(message: AIMessage | None) -> bool:
    return message is not None and message.response_metadata.get("finish_reason") == "length"


def _ended_early(message: AIMessage | None, text: str, partial: Any) -> OutputLimitError:
    usage = message.usage_metadata if message is not None else None
    limit = usage["output_tokens"] if usage else 0
    return OutputLimitError(limit, generated=text, ended_early=True, partial=partial)


def _made(kind: Any, value: Any, *, partial: bool) -> Any:
    """Return an instance of a class; None where a part of one is not enough for it."""
    try:
        return instance_of(kind, value)
    except ValueError as error:  # what pydantic 2 and 1 raise
        if partial:
            return None
        text = json.dumps(value, ensure_ascii=False)
        msg = f"The answer fits its schema, but {kind.__name__} does not take it: {error}. It is {text}"
        raise OutputParserException(msg, llm_output=text) from error


def _refuse(kwargs: Mapping[str, Any], names: Iterable[str], method: Method) -> None:
    given = [name for name in names if name in kwargs]
    if given:
        msg = (
            f"{', '.join(given)} cannot be given beside method={method!r}, which sets it; for tools beside a "
            'structured answer use method="json_schema" with tools='
        )
        raise InvalidRequestError(msg)


def _traced(schema: Any, form: ObjectSchema) -> dict[str, Any]:
    """Return the schema as LangChain's tools for tracing expect it."""
    if is_schema_class(schema) and not dataclasses.is_dataclass(schema):  # which LangChain takes for functions
        return convert_to_json_schema(schema if is_instance_class(schema) else openai_tool(schema))
    described = {} if form.description is None else {"description": form.description}
    return {**form.schema, "title": form.name or _NAME, **described}


def _tool(form: ObjectSchema) -> Tool:
    described = {} if form.description is None else {"description": form.description}
    parameters = {key: value for key, value in form.schema.items() if key not in ("title", "description")}
    return {"type": "function", "function": {"name": form.name or _NAME, **described, "parameters": parameters}}


def _response_format(form: ObjectSchema, *, strict: bool | None) -> dict[str, Any]:
    strict = form.strict if strict is None else strict
    described = {"name": form.name or _NAME, "schema": form.schema} | ({} if strict is None else {"strict": strict})
    if form.description is not None:
        described["description"] = form.description
    return {"type": "json_schema", "json_schema": described}
