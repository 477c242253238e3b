"""Chat templates for models that ship none, each written from the format that its model's card documents.

Each file begins with a comment that names the format and its source. A template supports only what its format supports;
other parts of a conversation are reshaped first (see `chat.templates.adaptation`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources

from langchain_petals.errors import InvalidRequestError

# The models of a template: a pattern of hub names, and the model types of their configs. The first match counts.
_MODELS = {
    "stable-beluga": (r"stable-?beluga", ("llama",)),
    "guanaco": (r"guanaco", ("llama",)),
    "bloomz": (r"bloomz", ("bloom",)),
    "falcon-180b-chat": (r"falcon-180b.*chat", ("falcon",)),
    "falcon-instruct": (r"falcon-(7b|40b).*instruct", ("falcon", "RefinedWeb", "RefinedWebModel")),
    "llama-2-chat": (r"llama-?2.*chat", ("llama",)),
    "llama-3.1-instruct": (r"llama-?3\.[123].*instruct", ("llama",)),
    "llama-3-instruct": (r"llama-?3.*instruct", ("llama",)),
    "chatml": (r"chatml|hermes-2|openhermes|dolphin", ("llama", "mixtral", "mistral", "falcon")),
    "mixtral-instruct": (r"mixtral.*instruct", ("mixtral",)),
}

NAMES = tuple(sorted(_MODELS))
"""The names that `chat_template` takes."""


def name_for(model_name: str, model_type: str | None) -> str | None:
    """Return the name of the template for a model on the hub, None if there is none; `model_type` may be unknown."""
    for name, (pattern, model_types) in _MODELS.items():
        if re.search(pattern, model_name, re.IGNORECASE) and model_type in {None, *model_types}:
            return name
    return None


@lru_cache
def source(name: str) -> str:
    """Return the Jinja source of a template; an unknown name raises `InvalidRequestError`."""
    if name not in _MODELS:
        msg = (
            f"There is no built-in chat template {name!r}. Give one of {', '.join(NAMES)}, or a Jinja template (which "
            "has a '{' in it)."
        )
        raise InvalidRequestError(msg)
    return resources.files(__name__).joinpath(f"{name}.jinja").read_text(encoding="utf-8")
