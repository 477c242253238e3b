"""Selects the chat template of a model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.templates import builtin
from langchain_petals.chat.templates.chat_template import ChatTemplate
from langchain_petals.chat.templates.sanitizing import is_tag
from langchain_petals.errors import InvalidRequestError, MissingChatTemplateError

if TYPE_CHECKING:
    from langchain_petals.tokenizer import Tokenizer


def find_template(
    chat_template: str | None, tokenizer: Tokenizer, model_name: str, config_model_type: str | None
) -> ChatTemplate:
    """Return the chat template to use for a model.

    That is the requested one, or else the tokenizer's own, or else a built-in one for the model's name. The default of
    the tokenizer's class is never used.

    Args:
        chat_template: Jinja source, the name of a built-in template, or None.
        tokenizer: The model's transformers tokenizer.
        model_name: The model's name on the hub.
        config_model_type: `model_type` of the model's config, which a built-in template has to match; None if unknown.

    Raises:
        InvalidRequestError: `chat_template` is neither a template nor a known name.
        MissingChatTemplateError: None was requested, and there is none for this model.
    """
    tool_source = None
    if chat_template is not None:
        source = chat_template if "{" in chat_template else builtin.source(chat_template)
        name = None if "{" in chat_template else chat_template
    elif own := getattr(tokenizer, "chat_template", None):
        source, tool_source = _own_sources(own, model_name)
        name = model_name
    elif name := builtin.name_for(model_name, config_model_type):
        source = builtin.source(name)
    else:
        raise MissingChatTemplateError(model_name, builtin.NAMES)
    variables = tuple(
        (key, str(token)) for key, token in tokenizer.special_tokens_map.items() if isinstance(token, str)
    )
    # only those added tokens that structure prompts, and not words that were added to the vocabulary
    sources = source + (tool_source or "")
    added = {token for token in tokenizer.get_added_vocab() if is_tag(token) or token in sources}
    token_markers = added.union(map(str, tokenizer.all_special_tokens))
    return _compiled(source, variables, name=name, token_markers=frozenset(token_markers), tool_source=tool_source)


@lru_cache(maxsize=32)
def _compiled(source: str, variables: tuple[tuple[str, str], ...], **options: Any) -> ChatTemplate:
    """Return a compiled template; a cached one, since it keeps the results of its probes."""
    return ChatTemplate(source, special_tokens=dict(variables), **options)


def _own_sources(own: Any, model_name: str) -> tuple[str, str | None]:
    """Return a tokenizer's template, and the one for tools if it has two."""
    if isinstance(own, str):
        return own, None
    # several templates are a dictionary, or in the tokenizer's file a list of {"name": ..., "template": ...}
    named = own if isinstance(own, dict) else {item["name"]: item["template"] for item in own}
    if "default" not in named:
        msg = (
            f"{model_name} ships the chat templates {', '.join(map(repr, named))} and no default. Give the text of one "
            "as chat_template."
        )
        raise InvalidRequestError(msg)
    return named["default"], named.get("tool_use")
