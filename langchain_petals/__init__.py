"""LangChain's language models over a Petals swarm.

Importing this package is fast: its names are imported on first use, since LangChain's language models take 0.6 s to
import. Torch and petals, which take several seconds, are imported when a model is first used.
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
