"""JSON schemas of whatever describes an object: pydantic classes, dataclasses, TypedDicts, dictionaries."""

from langchain_petals.schemas.classes import (
    DEFINITIONS,
    PARAMETERS,
    Form,
    closed,
    closed_schema_of,
    contains_itself,
    form_of,
    instance_of,
    is_class_of_forms,
    is_class_of_instances,
    json_schema_of,
    schema_of_class,
    untitled,
)
from langchain_petals.schemas.json_schema import ANNOTATIONS, Path, path_of, pointer_of, resolved, subschemas
from langchain_petals.schemas.typed_dicts import class_of

__all__ = [
    "ANNOTATIONS",
    "DEFINITIONS",
    "PARAMETERS",
    "Form",
    "Path",
    "class_of",
    "closed",
    "closed_schema_of",
    "contains_itself",
    "form_of",
    "instance_of",
    "is_class_of_forms",
    "is_class_of_instances",
    "json_schema_of",
    "path_of",
    "pointer_of",
    "resolved",
    "schema_of_class",
    "subschemas",
    "untitled",
]
