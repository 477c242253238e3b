"""The chat templates that a model brings: where its files may have them, and in which order they count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_petals import hub
from langchain_petals.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_petals.hub import Files

_DEFAULT, _WITH_TOOLS = "default", "tool_use"
_FILE, _TOOLS_FILE = "chat_template.jinja", f"additional_chat_templates/{_WITH_TOOLS}.jinja"
_OLD_FILE, _FIELD = "chat_template.json", "chat_template"


def read_chat_template(files: Files, tokenizer_config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Return a model's own chat template.

    Newer repositories have chat_template.jinja, with others in additional_chat_templates/; some have
    chat_template.json; most have a field in tokenizer_config.json, with one template or a list of named ones. The first
    of these counts.

    Args:
        files: The model's files.
        tokenizer_config: What tokenizer_config.json holds.

    Returns:
        One template, or several by their names; None if the model has none.

    Raises:
        ModelLoadError: What should be a template is none.
    """
    own = hub.read_text(files, _FILE)
    if own is not None:
        for_tools = hub.read_text(files, _TOOLS_FILE)
        return own if for_tools is None else {_DEFAULT: own, _WITH_TOOLS: for_tools}
    old = hub.read_json(files, _OLD_FILE) or {}
    source = _OLD_FILE if _FIELD in old else "tokenizer_config.json"
    found = old.get(_FIELD, tokenizer_config.get(_FIELD))
    if found is None or isinstance(found, str):
        return found
    if isinstance(found, list) and all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in found):
        found = {each["name"]: each.get("template") for each in found}
    if isinstance(found, dict) and all(isinstance(text, str) for pair in found.items() for text in pair):
        return found
    msg = f"{source} of {files.name!r} has a chat_template that is neither a text nor a list of named texts."
    raise ModelLoadError(msg)
