"""The JSON schema of whatever describes a form: a pydantic class of either version, a TypedDict, a schema itself."""

from __future__ import annotations

from typing import Any, cast, get_origin

from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel
from typing_extensions import is_typeddict

from langchain_petals.engine.grammars import ANNOTATIONS
from langchain_petals.errors import InvalidRequestError


def json_schema_of(form: Any) -> dict[str, Any]:
    """Return the JSON schema of a form.

    Objects of classes are closed: they have the properties that the class names and no others, unless it allows them.

    Args:
        form: A JSON schema, which is returned as it is, a pydantic class of version 2 or 1, or a TypedDict.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if isinstance(form, dict):
        return form
    if isinstance(form, type) and issubclass(form, BaseModel):
        return cast("dict[str, Any]", closed(form.model_json_schema()))
    if is_typeddict(form) or _is_pydantic_v1(form):
        return cast("dict[str, Any]", closed(convert_to_json_schema(form)))
    msg = f"a JSON schema, a pydantic class or a TypedDict is needed, not {get_origin(form) or type(form).__name__}"
    raise InvalidRequestError(msg)


def _is_pydantic_v1(form: Any) -> bool:
    # by its interface, since pydantic.v1 warns on Python 3.14 when it is imported
    return isinstance(form, type) and hasattr(form, "__fields__") and hasattr(form, "parse_obj")


def closed(schema: Any) -> Any:
    """Return a schema whose objects have no other properties than it names, where it does not say whether they may.

    Args:
        schema: JSON schema.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: value if key in ANNOTATIONS else _closed_values(key, value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.keys() & {"patternProperties", "allOf"}:
        result.setdefault("additionalProperties", False)
    return result


def _closed_values(key: str, value: Any) -> Any:
    # the keys of these are names, not keywords
    if key in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, dict):
        return {name: closed(each) for name, each in value.items()}
    return closed(value)
