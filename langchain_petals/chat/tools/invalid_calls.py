"""Calls that are none, as messages hold them: what was written, what can be read of it, and what is wrong with it.

Parts of a call may have been streamed before it turned out to be none. LangChain completes JSON that is cut off, and
would make a call of them; so what follows on them in the stream is JSON that it cannot mend, and then the reason.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_core.messages import InvalidToolCall

# Inside a string, after a backslash or outside, this comes to a bracket that closes what is not open.
BEYOND_REPAIR = '"{]"{]'
"""Follows on arguments that were streamed."""


def written_in(call: InvalidToolCall) -> str:
    """Return what the model wrote of the arguments."""
    return (call["args"] or "").partition(BEYOND_REPAIR)[0]


def arguments_of(call: InvalidToolCall) -> Any:
    """Return the arguments as far as they can be read; None if they cannot."""
    try:
        return json.loads(written_in(call))
    except ValueError:
        return None


def problem_of(call: InvalidToolCall) -> str:
    """Return what is wrong with a call; of one that was streamed, its arguments tell."""
    told = (call["args"] or "").rpartition(BEYOND_REPAIR)[2] if BEYOND_REPAIR in (call["args"] or "") else ""
    return call["error"] or told.strip() or "it cannot be read"
