"""LangChain's language models over a Petals swarm.

Importing this loads nothing: names are looked up on first use, since what they need takes a while (LangChain's
language models 0.6 s, and torch and petals, when a model is first used, several seconds).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_petals.chat_models import ChatPetals
    from langchain_petals.llms import Petals

    __version__: str

_HOMES = {"ChatPetals": "langchain_petals.chat_models", "Petals": "langchain_petals.llms"}

__all__ = ["ChatPetals", "Petals", "__version__"]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module on first use."""
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "__version__":
        value = importlib.import_module("importlib.metadata").version("langchain-petals")
    else:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return __all__
