"""The cache key of an answer: LangChain's caches store and find answers by it.

It holds only what can change an answer. Addresses, timeouts and batching cannot, so a cache on disk stays valid when a
swarm is started again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_petals.chat.tools import openai_tools
from langchain_petals.configuration.options import CONSTRAINT_OPTIONS, GenerationOptions, added_up, resolve_options
from langchain_petals.schemas import closed_schema_of, is_schema_class, object_schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

OF_ONE_MODEL = frozenset({"dht_prefix", "revision", "active_adapter"})
"""Fields that apply to one model only."""

# A swarm may serve two models of one name under two prefixes.
_MODEL_FIELDS = ("model_name", "revision", "dht_prefix", "active_adapter", "torch_dtype")


def identity_of_answers(model: BaseModel, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cache key of a call to a `PetalsParameters`, without the prompt; see `resolve_options` for layers."""
    chosen = added_up(*layers)
    constraints = {name: chosen.pop(name, None) for name in CONSTRAINT_OPTIONS}
    own = getattr(model, "json_schema", None)  # it is closed already, and may be large
    if constraints["json_schema"] is not None and constraints["json_schema"] is not own:
        constraints["json_schema"] = closed_schema_of(constraints["json_schema"])
    options = resolve_options(chosen).model_dump(exclude={"timeout", *CONSTRAINT_OPTIONS}, mode="json") | constraints
    fields = type(model).model_fields
    more = {
        name: value
        for name, value in options.items()
        if name not in fields and value != GenerationOptions.model_fields[name].default
    }
    key = {name: getattr(model, name) for name in _MODEL_FIELDS}
    given = [getattr(model, name) for name in ("client", "tokenizer")]
    if None not in given:
        key["client"] = [getattr(each, "name_or_path", None) for each in given]
    return key | {name: value for name, value in options.items() if name in fields} | {"model_kwargs": more}


def identity_of_response_format(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the cache key that comes from `tools`, `response_format` and similar arguments.

    Classes are replaced by their schemas, since two classes may have one name.
    """
    asked = {name: value for name, value in arguments.items() if value is not None}
    if is_schema_class(asked.get("response_format")):
        asked["response_format"] = object_schema_of(asked["response_format"]).schema
    if "tools" in asked:
        asked["tools"] = openai_tools(asked["tools"])
    return asked
