"""Invalid tool calls in messages: the text of their arguments, and what is wrong with them.

Parts of a call may have been streamed before it turns out to be invalid. LangChain completes JSON that is cut off, and
would make a valid call of these parts. So the stream appends text that LangChain cannot complete, and then the reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.messages import InvalidToolCall

# wherever the arguments stop (in a string, after a backslash, elsewhere), one bracket here closes none that is open
BEYOND_REPAIR = '"{]"{]'
"""Text after streamed arguments that makes them invalid for LangChain."""


def written_in(call: InvalidToolCall) -> str:
    """Return the arguments' text as the model wrote it."""
    return (call["args"] or "").partition(BEYOND_REPAIR)[0]


def arguments_of(call: InvalidToolCall) -> Any:
    """Return the arguments; None if they are not valid JSON."""
    try:
        return json.loads(written_in(call))
    except ValueError:
        return None


def problem_of(call: InvalidToolCall) -> str:
    """Return what is wrong with a call; in a streamed call, the reason follows the arguments."""
    reason = (call["args"] or "").partition(BEYOND_REPAIR)[2]
    return call["error"] or reason.strip() or "it cannot be read"
