"""What an answer depends on: LangChain's caches tell calls apart by it, and find answers again by it.

Nothing else is among it. Where the servers are, how long anything may take and what runs together change no answer, so
that a cache on the disk is of use after the swarm was started anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_petals.options import FORMS, GenerationOptions, added_up, merged
from langchain_petals.schemas import closed_schema_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_petals.parameters import PetalsParameters

# A swarm may serve two models of one name under two prefixes; code that comes with a model may change its tokenizer.
_OF_THE_MODEL = ("model_name", "revision", "dht_prefix", "active_adapter", "torch_dtype", "trust_remote_code")


def of_answers(model: PetalsParameters, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the answers to all prompts depend on, whichever layer says it.

    Args:
        model: Where the model is.
        layers: Options of the constructor, of `model_kwargs` and of a call.

    Raises:
        InvalidRequestError: An option is unknown, out of range or contradicts another; names it.
    """
    chosen = added_up(*layers)
    forms = {name: chosen.pop(name, None) for name in FORMS}
    own = getattr(model, "json_schema", None)  # is closed already, and may be large
    if forms["json_schema"] is not None and forms["json_schema"] is not own:
        forms["json_schema"] = closed_schema_of(forms["json_schema"])
    options = merged(chosen).model_dump(exclude={"timeout", *FORMS}, mode="json") | forms
    fields = type(model).model_fields
    more = {
        name: value
        for name, value in options.items()
        if name not in fields and value != GenerationOptions.model_fields[name].default
    }
    key = {name: getattr(model, name) for name in _OF_THE_MODEL}
    if model.client is not None:
        key["client"] = [getattr(each, "name_or_path", None) for each in (model.client, model.tokenizer)]
    return key | {name: value for name, value in options.items() if name in fields} | {"model_kwargs": more}
