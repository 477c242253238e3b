"""JSON schemas as trees: their parts, the paths to them, and the references between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str, ...]
"""The keys that lead to a part of a schema."""

DEFINITIONS = ("$defs", "definitions")
"""Keywords for schemas that others refer to."""

ANNOTATIONS = frozenset(
    {"title", "description", "examples", "default", "deprecated", "readOnly", "writeOnly", "$comment"}
)
"""Keywords that do not restrict values."""

# keywords whose values are data, not schemas
_DATA = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired", "discriminator"})
# keywords whose values are schemas by name: the keys in them are no keywords
_NAMED = (*DEFINITIONS, "properties", "patternProperties", "dependentSchemas", "dependencies")


def subschemas(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield all schemas in a JSON schema, itself included, with their paths."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from subschemas(each, (*path, str(index)))
    elif isinstance(schema, dict):
        yield path, schema
        for key, inner in schema.items():
            if key in _NAMED and isinstance(inner, dict):
                for name, each in inner.items():
                    yield from subschemas(each, (*path, key, name))
            elif key not in _DATA:
                yield from subschemas(inner, (*path, key))


def path_of(reference: str) -> Path:
    """Return the path of a JSON pointer (RFC 6901) in a URI's fragment."""
    tokens = unquote(reference[1:]).split("/")[1:]
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def listed_values(schema: Mapping[str, Any]) -> list[Any] | None:
    """Return the values that `enum` or `const` allows; None if a schema has neither."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return values if isinstance(values, list) else None


def target_of(part: Mapping[str, Any], parts: Mapping[Path, Any]) -> Path | None:
    """Return the path that a schema's `$ref` points to; None if it is not one of the document's `parts`."""
    reference = part.get("$ref")
    path = path_of(reference) if isinstance(reference, str) and reference.startswith("#") else None
    return path if path in parts else None


def resolved(part: Any, parts: Mapping[Path, dict[str, Any]]) -> Any:
    """Return a schema with its own `$ref` replaced by the target in `parts`; return other values unchanged."""
    seen: set[Path] = set()
    while isinstance(part, dict) and (target := target_of(part, parts)) is not None and target not in seen:
        seen.add(target)
        part = {**parts[target], **{key: value for key, value in part.items() if key != "$ref"}}
    return part
