"""JSON schemas of whatever describes an object: pydantic classes, dataclasses, TypedDicts, dictionaries."""
