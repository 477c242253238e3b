"""What the calls of both model classes share: threads and tracebacks."""

from langchain_petals.calls.answers import cancel_answer, show_warnings
from langchain_petals.calls.off_loop import added_off_loop, begun_off_loop
from langchain_petals.calls.tracebacks import short_traceback, without_frames

__all__ = ["added_off_loop", "begun_off_loop", "cancel_answer", "short_traceback", "show_warnings", "without_frames"]
