"""The methods of structured output: an answer that fits a schema, a call of a tool, or any JSON object."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from langchain_petals.schemas import instance_of, is_instance_class, is_schema_class, object_schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401 - of a base class; pydantic's mypy plugin looks here

    from langchain_petals.schemas import ObjectSchema

Method = Literal["json_schema", "function_calling", "json_mode"]


def structured_output_model(
    model: BaseChatModel,
    schema: Any,
    *,
    method: Method,
    include_raw: bool,
    strict: bool | None,
    warn: Callable[[Iterable[str]], object],
    **kwargs: Any,
) -> Runnable[Any, Any]:
    """Return a model whose answers are objects; see `ChatPetals.with_structured_output`."""
    if strict is not None and method == "json_mode":
        msg = 'strict does nothing with method="json_mode", which uses no schema; leave it out'
        raise InvalidRequestError(msg)
    if schema is None and method != "json_mode":
        msg = f'method={method!r} needs a schema; give one, or method="json_mode" for any JSON object'
        raise InvalidRequestError(msg)
    object_schema = None if schema is None else object_schema_of(schema)
    if object_schema is not None:
        kwargs["ls_structured_output_format"] = {  # for tracing
            "kwargs": {"method": method, "strict": strict},
            "schema": _traced(schema, object_schema),
        }
        strict = object_schema.strict if strict is None else strict
    if method == "function_calling" and object_schema is not None:
        bound, parser = _by_call(model, schema, object_schema, strict=strict, **kwargs)
    elif method in ("json_schema", "json_mode"):
        bound, parser = _by_answer(model, schema, object_schema, method=method, strict=strict, warn=warn, **kwargs)
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

    # without LangChain's fallbacks, which do not catch an error after the first chunk of a stream
    return RunnableMap(raw=bound) | RunnableLambda(parsed)


def _by_call(
    model: BaseChatModel, schema: Any, object_schema: ObjectSchema, *, strict: bool | None, **kwargs: Any
) -> tuple[Runnable[Any, AIMessage], Runnable[AIMessage, Any]]:
    """Return a model that has to call a tool whose arguments are the object, and the parser of the call."""
    _refuse(kwargs, ("tools", "tool_choice", "parallel_tool_calls", "response_format"), "function_calling")
    if is_schema_class(schema):
        tool = openai_tool(schema)
    else:
        parameters = {key: value for key, value in object_schema.schema.items() if key not in ("title", "description")}
        tool = {"type": "function", "function": _named(object_schema) | {"parameters": parameters}}
    name = tool["function"]["name"]
    if object_schema.schema.get("type", "object") != "object":
        msg = f'{name!r} is no object, but the arguments of a tool have to be one; use method="json_schema"'
        raise InvalidRequestError(msg)
    choice: Any = {"type": "function", "function": {"name": name}}  # not the name alone, which may be "auto"
    bound = model.bind_tools([tool], tool_choice=choice, parallel_tool_calls=False, strict=strict, **kwargs)
    return bound, _CallParser(key_name=name, first_tool_only=True, kind=schema)


def _by_answer(
    model: BaseChatModel,
    schema: Any,
    object_schema: ObjectSchema | None,
    *,
    method: Method,
    strict: bool | None,
    warn: Callable[[Iterable[str]], object],
    **kwargs: Any,
) -> tuple[Runnable[Any, AIMessage], Runnable[AIMessage, Any]]:
    """Return a model whose answers have to be the object, and the parser of the answers."""
    _refuse(kwargs, ("response_format",), method)
    is_object = object_schema is None or object_schema.schema.get("type", "object") == "object"
    if method == "json_mode" and not is_object:
        msg = 'method="json_mode" answers with objects only; use method="json_schema"'
        raise InvalidRequestError(msg)
    response_format: dict[str, Any] = {"type": "json_object", PARSED: True}
    if method == "json_schema" and object_schema is not None:
        described = _named(object_schema) | {"schema": object_schema.schema}
        described |= {} if strict is None else {"strict": strict}
        response_format |= {"type": "json_schema", "json_schema": described}
    asked = ResponseFormat.from_call({"response_format": response_format})
    if asked.schema is not None:
        json_grammar(asked.schema, strict=asked.strict)  # raises for a wrong schema
        warn(asked.warnings)
    bound = model.bind(response_format=response_format, **kwargs)
    return bound, _AnswerParser(kind=schema, problem_of=asked.problem_of)


class _AnswerParser(JsonOutputParser):
    """Parses an answer's text to an object of the schema `kind`; the result is None if the answer calls tools.

    An answer that the token limit ended early raises `OutputLimitError`, although it fits its schema.
    """

    kind: Annotated[Any, SkipValidation()] = None
    problem_of: Annotated[Any, SkipValidation()]

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer, or its beginning."""
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
        return _made(self.kind, value, partial=partial)


class _CallParser(JsonOutputKeyToolsParser):
    """Parses the arguments of a call to an object of the schema `kind`; see `_AnswerParser`."""

    kind: Annotated[Any, SkipValidation()] = None

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the arguments; return None if there is no call, or only its beginning."""
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
        return _made(self.kind, arguments, partial=partial)


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
    """Return an instance of `kind`, or the value if `kind` has no instances; None if it refuses a partial value."""
    if value is None or not is_instance_class(kind):
        return value
    try:
        return instance_of(kind, value)
    except ValueError as error:  # from pydantic 2 or 1
        if partial:
            return None
        text = json.dumps(value, ensure_ascii=False)
        msg = f"The answer fits its schema, but {kind.__name__} does not take it: {error}. It is {text}"
        raise OutputParserException(msg, llm_output=text) from error


def _refuse(kwargs: Mapping[str, Any], names: Iterable[str], method: Method) -> None:
    given = [name for name in names if name in kwargs]
    if given:
        msg = (
            f"{', '.join(given)} cannot be given beside method={method!r}, which sets it; to combine tools "
            'with a structured answer, use method="json_schema" with tools='
        )
        raise InvalidRequestError(msg)


def _traced(schema: Any, object_schema: ObjectSchema) -> dict[str, Any]:
    """Return the schema in the format of LangChain's traces."""
    if is_schema_class(schema) and not dataclasses.is_dataclass(schema):  # LangChain treats these as functions
        return convert_to_json_schema(schema if is_instance_class(schema) else openai_tool(schema))
    named = _named(object_schema)
    return {**object_schema.schema, "title": named.pop("name"), **named}


def _named(object_schema: ObjectSchema) -> dict[str, Any]:
    description = {} if object_schema.description is None else {"description": object_schema.description}
    return {"name": object_schema.name or "answer", **description}
