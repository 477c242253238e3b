"""Tools: their schemas, the formats of tool calls, and the parser of calls."""

from langchain_petals.chat.tools.formats import HERMES, Mode, ToolFormat, chosen_tools, find_format, is_for_one_call
from langchain_petals.chat.tools.invalid_calls import BEYOND_REPAIR, arguments_of, problem_of, written_in
from langchain_petals.chat.tools.parser import BrokenCall, CallPart, Part, TextPart, ToolCallParser
from langchain_petals.chat.tools.schema import Tool, arguments_rule, openai_tool, openai_tools

__all__ = [
    "BEYOND_REPAIR",
    "HERMES",
    "BrokenCall",
    "CallPart",
    "Mode",
    "Part",
    "TextPart",
    "Tool",
    "ToolCallParser",
    "ToolFormat",
    "arguments_of",
    "arguments_rule",
    "chosen_tools",
    "find_format",
    "is_for_one_call",
    "openai_tool",
    "openai_tools",
    "problem_of",
    "written_in",
]
