"""What the calls of both model classes share: threads, tracebacks, log-probabilities."""

from langchain_petals.calls.logprobs import openai_logprobs
from langchain_petals.calls.off_loop import added_off_loop, begun_off_loop
from langchain_petals.calls.tracebacks import short_traceback, without_frames

__all__ = ["added_off_loop", "begun_off_loop", "openai_logprobs", "short_traceback", "without_frames"]
