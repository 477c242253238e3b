"""The three ways to structured output: a schema for the answer, a tool that must be called, any JSON object."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import BaseOutputParser, JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.runnables import RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, SkipValidation
from typing_extensions import is_typeddict

from langchain_petals.chat.answer_form import AnswerForm
from langchain_petals.chat.tools import openai_tool
from langchain_petals.engine.grammars import json_grammar
from langchain_petals.errors import InvalidRequestError
from langchain_petals.schemas import form_of, is_class_of_forms
from langchain_petals.typed_dicts import class_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable
    from langchain_core.utils.pydantic import TBaseModel  # noqa: F401 - of a base class; pydantic's mypy plugin looks here

    from langchain_petals.chat.tools import Tool
    from langchain_petals.schemas import Form

Method = Literal["json_schema", "function_calling", "json_mode"]

_NAME = "answer"  # of a form that has none
_ANY_JSON = {"type": "json_object"}


def structured(
    model: BaseChatModel, schema: Any, *, method: Method, include_raw: bool, strict: bool | None, **kwargs: Any
) -> Runnable[Any, Any]:
    """Return a model whose answers are objects; see `ChatPetals.with_structured_output`."""
    if strict is not None and method == "json_mode":
        msg = 'strict does nothing with method="json_mode", which keeps to no schema; leave it out'
        raise InvalidRequestError(msg)
    if schema is None and method != "json_mode":
        msg = f'method={method!r} needs a schema; give one, or method="json_mode" for any JSON object'
        raise InvalidRequestError(msg)
    is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
    described = class_of(schema) if is_typeddict(schema) else schema
    form = None if described is None else form_of(described)
    if form is not None:  # for tracing
        kwargs["ls_structured_output_format"] = {
            "kwargs": {"method": method, "strict": strict},
            "schema": _traced(described, form),
        }
    bound: Runnable[Any, Any]
    parser: Runnable[Any, Any]
    if method == "function_calling" and form is not None:
        _refuse(kwargs, ("tools", "tool_choice", "parallel_tool_calls", "response_format"), method)
        tool = openai_tool(described) if is_class_of_forms(described) else _tool(form)
        name = tool["function"]["name"]
        if form.schema.get("type", "object") != "object":
            msg = f'{name!r} is no object, which arguments of a tool have to be; use method="json_schema"'
            raise InvalidRequestError(msg)
        strict = form.strict if strict is None else strict
        bound = model.bind_tools([tool], tool_choice=name, parallel_tool_calls=False, strict=strict, **kwargs)
        parser = (
            _ArgumentsParser(key_name=name, first_tool_only=True, pydantic_object=schema)
            if is_class
            else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        )
    elif method in ("json_schema", "json_mode"):
        _refuse(kwargs, ("response_format",), method)
        if method == "json_mode" and form is not None and form.schema.get("type", "object") != "object":
            msg = 'method="json_mode" answers with objects only; use method="json_schema"'
            raise InvalidRequestError(msg)
        response_format = _response_format(form, strict=strict) if method == "json_schema" and form else _ANY_JSON
        bound = model.bind(response_format=response_format, **kwargs)
        parser = _PydanticParser(pydantic_object=schema) if is_class else _JsonParser()
    else:
        msg = f'method={method!r} is none of "json_schema", "function_calling" and "json_mode"'
        raise InvalidRequestError(msg)
    if not include_raw:
        return bound | parser
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | parsed.with_fallbacks([failed], exception_key="parsing_error")


class _OrToolCalls(BaseOutputParser[Any]):
    """A parser that finds nothing in an answer that calls tools instead."""

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse an answer; None where it calls tools."""
        message = result[0].message if isinstance(result[0], ChatGeneration) else None
        if isinstance(message, AIMessage) and message.tool_calls:
            return None
        return super().parse_result(result, partial=partial)


class _JsonParser(_OrToolCalls, JsonOutputParser):
    pass


class _PydanticParser(_OrToolCalls, PydanticOutputParser[BaseModel]):
    def _parse_obj(self, obj: Any) -> Any:
        try:
            return _instance(self.pydantic_object, obj)
        except ValueError as error:  # what pydantic 2 and 1 raise
            raise self._parser_exception(error, obj) from error


class _ArgumentsParser(JsonOutputKeyToolsParser):
    """Makes an object of a pydantic class of a call's arguments, once all that it needs is there."""

    pydantic_object: Annotated[Any, SkipValidation()]

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Any:
        """Parse the arguments; None where there is no call, or not enough of it."""
        arguments = super().parse_result(result, partial=partial)
        if arguments is None:
            return None
        try:
            return _instance(self.pydantic_object, arguments)
        except ValueError:  # what pydantic 2 and 1 raise
            if partial:
                return None
            raise


def _instance(kind: Any, value: Any) -> Any:
    """Return an object of a pydantic class of version 2 or 1.

    Pydantic reads it as JSON: where a class is strict, a date may be a text in JSON, but not in Python.
    """
    return kind.model_validate_json(json.dumps(value)) if issubclass(kind, BaseModel) else kind.parse_obj(value)


def _refuse(kwargs: Mapping[str, Any], names: Iterable[str], method: Method) -> None:
    given = [name for name in names if name in kwargs]
    if given:
        msg = (
            f"{', '.join(given)} cannot be given beside method={method!r}, which sets it; for tools beside a "
            'structured answer use method="json_schema" with tools='
        )
        raise InvalidRequestError(msg)


def _traced(schema: Any, form: Form) -> dict[str, Any]:
    """Return the schema as LangChain's tools for tracing expect it."""
    if is_class_of_forms(schema):
        return convert_to_json_schema(schema)
    described = {} if form.description is None else {"description": form.description}
    return {**form.schema, "title": form.name or _NAME, **described}


def _tool(form: Form) -> Tool:
    described = {} if form.description is None else {"description": form.description}
    parameters = {key: value for key, value in form.schema.items() if key not in ("title", "description")}
    return {"type": "function", "function": {"name": form.name or _NAME, **described, "parameters": parameters}}


def _response_format(form: Form, *, strict: bool | None) -> dict[str, Any]:
    strict = form.strict if strict is None else strict
    described = {"name": form.name or _NAME, "schema": form.schema} | ({} if strict is None else {"strict": strict})
    if form.description is not None:
        described["description"] = form.description
    response_format = {"type": "json_schema", "json_schema": described}
    asked = AnswerForm.of_call({"response_format": response_format})
    if asked.schema is not None:
        json_grammar(asked.schema)  # raises now
    return response_format
