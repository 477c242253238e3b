"""One answer for a person or a script: `ask`, and `chat` with piped input."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from langchain_petals.cli.conversations.answer_view import CUT_OFF, AnswerView, is_cut_off, problem_of
from langchain_petals.cli.plain_text import json_line
from langchain_petals.cli.terminal import make_console
from langchain_petals.errors import InvalidRequestError, PetalsError

if TYPE_CHECKING:
    from langchain_petals.cli.conversations.turn import Turn


class UnfinishedAnswerError(PetalsError):
    """An answer was shown that is not what was asked for: it was cut off, or breaks its schema."""


def read_input() -> str:
    """Return the text that is piped to the standard input; empty if that is a terminal or closed.

    Raises:
        InvalidRequestError: It is no text.
    """
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        msg = f"The standard input is no UTF-8 text (byte {error.start}). Pipe text to this command."
        raise InvalidRequestError(msg) from error


def show_one_answer(turn: Turn, *, as_json: bool, must_be_whole: bool = False) -> None:
    """Run a turn; write its answer while it comes, or one JSON document at its end.

    Args:
        turn: The turn.
        as_json: Whether to write JSON.
        must_be_whole: Whether an answer that the limit on tokens cut off is an error.

    Raises:
        UnfinishedAnswerError: The answer was written, but it was cut off or breaks its schema.
        PetalsError: There is no answer.
    """
    answers, notes = make_console(), make_console(stderr=True)
    if as_json:
        for _ in turn:
            pass
        answers.file.write(json_line(document(turn), answers.encoding) + "\n")
        answers.file.flush()
    else:
        AnswerView(answers, notes).show(turn)
    problem = problem_of(turn)
    if problem is None and is_cut_off(turn):
        problem = CUT_OFF
        if not must_be_whole:
            notes.print(CUT_OFF, style="yellow")
            return
    if problem is not None:
        raise UnfinishedAnswerError(problem)


def document(turn: Turn) -> dict[str, Any]:
    """Return a turn as JSON: the last text, all calls with their results, the usage and the finish reason."""
    from langchain_core.messages import AIMessage, ToolMessage  # noqa: PLC0415 - not needed for `--help`

    answer = turn.answer
    results = {each.tool_call_id: each for each in turn.messages if isinstance(each, ToolMessage)}
    calls = [call for each in turn.messages if isinstance(each, AIMessage) for call in each.tool_calls]
    cost = turn.cost
    return {
        "text": "" if answer is None else str(answer.text),
        "tool_calls": [
            {
                "name": call["name"],
                "args": call["args"],
                "result": str(results[call["id"] or ""].text),
                "status": results[call["id"] or ""].status,
            }
            for call in calls
        ],
        "usage": {
            "input_tokens": cost.read,
            "output_tokens": cost.written,
            "total_tokens": cost.read + cost.written,
            "cached_tokens": cost.reused,
            "trips": cost.trips,
        },
        "finish_reason": None if answer is None else answer.response_metadata.get("finish_reason"),
        "model": None if answer is None else answer.response_metadata.get("model_name"),
    }
