"""Chat templates: `find_template` selects one for a model, `ChatTemplate.render` makes a prompt of a conversation."""

from langchain_petals.chat.templates.adaptation import with_system_section
from langchain_petals.chat.templates.chat_template import ChatTemplate
from langchain_petals.chat.templates.segments import Segment, encode, join_segments
from langchain_petals.chat.templates.selection import find_template

__all__ = ["ChatTemplate", "Segment", "encode", "find_template", "join_segments", "with_system_section"]
