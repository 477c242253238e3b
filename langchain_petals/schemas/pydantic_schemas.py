"""Generators of JSON schemas that are as exact as pydantic's validation; pydantic's own generator is less exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema

from langchain_petals.schemas.json_schema import resolved, subschemas
from langchain_petals.schemas.key_texts import DECIMAL, key_texts

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExactJsonSchema(GenerateJsonSchema):
    """Generates schemas that restrict the keys of maps, and the strings of decimal numbers."""

    def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
        """Return the schema of a class; references in `propertyNames` are resolved when all definitions exist."""
        generated = super().generate(schema, mode)
        parts = dict(subschemas(generated))
        for part in parts.values():
            if "$ref" in (part.get("propertyNames") or ()):
                part["propertyNames"] = key_texts(resolved(part["propertyNames"], parts))
        return generated

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a map."""
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        if schema.get("keys_schema", {}).get("type") == "literal":  # pydantic converts no string to its numbers
            keys = {"enum": [each for each in schema["keys_schema"]["expected"] if isinstance(each, (str, bool))]}
        described: dict[str, Any] = {"type": "object", "additionalProperties": values or True}
        if names := keys if "$ref" in keys else key_texts(keys):
            described["propertyNames"] = names
        self.update_with_validations(described, schema, self.ValidationsMapping.object)
        return described

    def decimal_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a decimal number, for which pydantic's own schema allows any string."""
        described = super().decimal_schema(schema)
        for branch in described.get("anyOf", ()):
            if branch.get("type") == "string":
                branch["pattern"] = DECIMAL
        return described


class InputJsonSchema(ExactJsonSchema):
    """Generates schemas of all values that pydantic validates."""

    def set_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a set; pydantic removes duplicates."""
        return {key: value for key, value in super().set_schema(schema).items() if key != "uniqueItems"}

    frozenset_schema = set_schema

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a union; if a function is the discriminator, more than one branch may fit."""
        described = super().tagged_union_schema(schema)
        if callable(schema["discriminator"]) and "oneOf" in described:
            described["anyOf"] = described.pop("oneOf")
        return described

    def model_fields_schema(self, schema: Any) -> dict[str, Any]:
        """Return the schema of a class's fields; a field with an alias path is inside of another value."""
        described = super().model_fields_schema(schema)
        for name, field in schema["fields"].items():
            path = _alias_path(field.get("validation_alias"))
            if path and name in described.get("properties", {}):
                value, required = described["properties"].pop(name), name in described.get("required", ())
                if required:
                    described["required"].remove(name)
                _put(described, path, value, required=required)
        return described


def _alias_path(alias: Any) -> list[str | int]:
    """Return the path of a field inside of another value; empty if the field is not inside of one."""
    paths = alias if isinstance(alias, list) and alias and isinstance(alias[0], list) else [alias]
    return paths[0] if all(isinstance(path, list) and len(path) > 1 for path in paths) else []


def _put(schema: dict[str, Any], path: Sequence[str | int], value: dict[str, Any], *, required: bool) -> None:
    """Put the schema of a value into the schema of the object or array around it."""
    step, *rest = path
    if isinstance(step, int):
        schema["type"] = "array"
        items = schema.setdefault("prefixItems", [])
        items += [{} for _ in range(step + 1 - len(items))]
        if required:
            schema["minItems"] = max(step + 1, schema.get("minItems", 0))
        inner = items[step]
    else:
        schema["type"] = "object"
        inner = schema.setdefault("properties", {}).setdefault(step, {})
        if required:
            schema["required"] = list(dict.fromkeys([*schema.get("required", ()), step]))
    if rest:
        _put(inner, rest, value, required=required)
    else:
        inner.update(value)
