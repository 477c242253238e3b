"""What the calls of both model classes share: threads, tracebacks, and what answers cost."""

from langchain_petals.calls.answers import cancel_answer, show_warnings
from langchain_petals.calls.off_loop import added_off_loop, begun_off_loop
from langchain_petals.calls.tracebacks import short_traceback, without_frames
from langchain_petals.calls.usage import summed_usage, token_usage

__all__ = [
    "added_off_loop",
    "begun_off_loop",
    "cancel_answer",
    "short_traceback",
    "show_warnings",
    "summed_usage",
    "token_usage",
    "without_frames",
]
