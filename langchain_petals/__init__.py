"""LangChain's language models over a Petals swarm; importing this loads neither torch nor petals."""

from importlib import metadata

from langchain_petals.llms import Petals

try:
    __version__ = metadata.version("langchain-petals")
except metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = ""

__all__ = ["Petals", "__version__"]
