"""The model hub: its key, a model's files, and the errors when they cannot be read.

Nothing here knows LangChain or torch; `huggingface_hub` is imported on first use.
"""

from langchain_petals.hub.files import Files, read_json, read_text
from langchain_petals.hub.key import (
    KEY_FIELD,
    KEY_FIELDS,
    KEY_VARIABLES,
    check_names,
    checked_key,
    hide_key,
    is_key,
    key_from_environment,
    with_hidden_key,
)
from langchain_petals.hub.repository import PICKLES, SAFETENSORS, Repository, key_origin, missing

__all__ = [
    "KEY_FIELD",
    "KEY_FIELDS",
    "KEY_VARIABLES",
    "PICKLES",
    "SAFETENSORS",
    "Files",
    "Repository",
    "check_names",
    "checked_key",
    "hide_key",
    "is_key",
    "key_from_environment",
    "key_origin",
    "missing",
    "read_json",
    "read_text",
    "with_hidden_key",
]
