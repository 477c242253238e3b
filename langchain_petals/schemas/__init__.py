"""JSON schemas of pydantic classes, dataclasses, TypedDicts and dictionaries, and access to their parts."""

from langchain_petals.schemas.closing import closed
from langchain_petals.schemas.json_schema import (
    ANNOTATIONS,
    DEFINITIONS,
    Path,
    listed_values,
    path_of,
    resolved,
    subschemas,
    target_of,
)
from langchain_petals.schemas.object_schema import (
    PARAMETERS,
    ObjectSchema,
    closed_schema_of,
    instance_of,
    is_instance_class,
    is_schema_class,
    object_schema_of,
    schema_of_class,
)

__all__ = [
    "ANNOTATIONS",
    "DEFINITIONS",
    "PARAMETERS",
    "ObjectSchema",
    "Path",
    "closed",
    "closed_schema_of",
    "instance_of",
    "is_instance_class",
    "is_schema_class",
    "listed_values",
    "object_schema_of",
    "path_of",
    "resolved",
    "schema_of_class",
    "subschemas",
    "target_of",
]
