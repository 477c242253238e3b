"""Constructor arguments and call options: names, defaults and checks."""

from langchain_petals.configuration.cache_key import OF_ONE_MODEL
from langchain_petals.configuration.chat_parameters import ChatParameters
from langchain_petals.configuration.options import CONSTRAINT_OPTIONS, OTHER_NAMES, GenerationOptions, JsonSchema
from langchain_petals.configuration.parameters import PetalsParameters

__all__ = [
    "CONSTRAINT_OPTIONS",
    "OF_ONE_MODEL",
    "OTHER_NAMES",
    "ChatParameters",
    "GenerationOptions",
    "JsonSchema",
    "PetalsParameters",
]
