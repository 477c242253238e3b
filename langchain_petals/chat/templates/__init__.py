"""Chat templates: which one a model has, and the prompt that it makes of a conversation."""

from langchain_petals.chat.templates.chat_template import ChatTemplate, find_template
from langchain_petals.chat.templates.segments import Segment, encode, join_segments

__all__ = ["ChatTemplate", "Segment", "encode", "find_template", "join_segments"]
