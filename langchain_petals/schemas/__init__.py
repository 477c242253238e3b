"""JSON schemas of whatever describes an object: pydantic classes, dataclasses, TypedDicts, dictionaries."""

from langchain_petals.schemas.json_schema import ANNOTATIONS, Path, path_of, pointer_of, resolved, subschemas
from langchain_petals.schemas.object_schema import (
    DEFINITIONS,
    PARAMETERS,
    ObjectSchema,
    closed,
    closed_schema_of,
    contains_itself,
    instance_of,
    is_instance_class,
    is_schema_class,
    json_schema_of,
    object_schema_of,
    schema_of_class,
    without_titles,
)

__all__ = [
    "ANNOTATIONS",
    "DEFINITIONS",
    "PARAMETERS",
    "ObjectSchema",
    "Path",
    "closed",
    "closed_schema_of",
    "contains_itself",
    "instance_of",
    "is_instance_class",
    "is_schema_class",
    "json_schema_of",
    "object_schema_of",
    "path_of",
    "pointer_of",
    "resolved",
    "schema_of_class",
    "subschemas",
    "without_titles",
]
