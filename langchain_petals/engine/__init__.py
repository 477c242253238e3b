"""The engine: token ids in, tokens out. It knows nothing of LangChain; its callers use `Engine.submit`.

Torch is loaded when `Connection`, `Engine` or `engines` is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_petals.engine.generation import Generation, cancelling
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings

if TYPE_CHECKING:
    from langchain_petals.engine.engine import Engine
    from langchain_petals.engine.loading import Connection
    from langchain_petals.engine.registry import engines

__all__ = ["Connection", "Engine", "Generation", "Request", "Sampling", "Settings", "cancelling", "engines"]

_LOADING_TORCH = {"Connection": "loading", "Engine": "engine", "engines": "registry"}


def __getattr__(name: str) -> Any:
    if name not in _LOADING_TORCH:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_LOADING_TORCH[name]}"), name)
