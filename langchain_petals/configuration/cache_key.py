"""What an answer depends on: LangChain's caches tell calls apart by it, and find answers again by it.

Nothing else is among it. Where the servers are, how long anything may take and what runs together change no answer, so
that a cache on the disk is of use after the swarm was started anew.
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
"""Fields that mean nothing to another model."""

# A swarm may serve two models of one name under two prefixes; code that comes with a model may change its tokenizer.
_OF_THE_MODEL = ("model_name", "revision", "dht_prefix", "active_adapter", "torch_dtype", "trust_remote_code")


def identity_of_answers(model: BaseModel, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the answers to all prompts depend on, whichever layer says it.

    Args:
        model: The object that is called; `PetalsParameters` has its fields.
        layers: Options of the constructor, of `model_kwargs` and of a call.

    Raises:
        InvalidRequestError: An option is unknown, out of range or contradicts another; names it.
    """
    chosen = added_up(*layers)
    forms = {name: chosen.pop(name, None) for name in CONSTRAINT_OPTIONS}
    own = getattr(model, "json_schema", None)  # is closed already, and may be large
    if forms["json_schema"] is not None and forms["json_schema"] is not own:
        forms["json_schema"] = closed_schema_of(forms["json_schema"])
    options = resolve_options(chosen).model_dump(exclude={"timeout", *CONSTRAINT_OPTIONS}, mode="json") | forms
    fields = type(model).model_fields
    more = {
        name: value
        for name, value in options.items()
        if name not in fields and value != GenerationOptions.model_fields[name].default
    }
    key = {name: getattr(model, name) for name in _OF_THE_MODEL}
    given = [getattr(model, name) for name in ("client", "tokenizer")]
    if None not in given:
        key["client"] = [getattr(each, "name_or_path", None) for each in given]
    return key | {name: value for name, value in options.items() if name in fields} | {"model_kwargs": more}


def identity_of_response_format(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a chat call says of the form of its answer: of classes the schema, since two may have one name.

    Args:
        arguments: `tools`, `response_format` and what else is about the form.

    Raises:
        InvalidRequestError: A tool is none.
    """
    form = {name: value for name, value in arguments.items() if value is not None}
    if is_schema_class(form.get("response_format")):
        form["response_format"] = object_schema_of(form["response_format"]).schema
    if "tools" in form:
        form["tools"] = openai_tools(form["tools"])
    return form
