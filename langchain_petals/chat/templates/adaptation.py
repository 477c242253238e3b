"""Conversations reshaped to what a template can render.

Many templates know less than LangChain's conversations: no system messages, no tools, no names, users and answers in
strict turns only. What a template does not know is written in the words of what it does know, so that nothing is lost:

    names of users               `Alice: text`, in the content. Names of other roles say nothing about who speaks.
    tool calls                   in the assistant's content, as the model writes them (see `tool_calls`); also where a
                                 template shows calls, but not the text beside them (or see `text_before_calls`)
    ids of calls                 nine letters or digits, where the template takes no others
    several calls at once        one call after the other, each followed by its result
    results of tools             a user's message, `Tool result (name): text`
    tools                        described at the end of the system message
    system messages, not known   put in front of the next user message, with an empty line in between; also where they
                                 would be gone once a tool was called
    system messages further on   the same, where the template takes one at the beginning only
    neighbours of one role       one message, with an empty line in between
    an answer at the beginning   after an empty message of the user
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

Turn = dict[str, Any]
WriteCalls = Callable[[Sequence[Any], str], str]

_BETWEEN = "\n\n"
_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")


def with_names(turns: Iterable[Turn]) -> list[Turn]:
    """Write the names of users into their messages."""
    return [
        turn | {"content": f"{turn['name']}: {turn['content']}"}
        if turn["role"] == "user" and turn.get("name")
        else turn
        for turn in turns
    ]


def with_written_calls(
    turns: Iterable[Turn], write: WriteCalls, *, where: Callable[[Turn], bool], results_of_users: bool
) -> list[Turn]:
    """Write tool calls into the content of the message that makes them.

    Args:
        turns: The conversation.
        write: Gives the text of an answer's calls (`name` and `args` of each), after its content.
        where: Whether to do so with the calls of a certain message.
        results_of_users: Let the user give their results.
    """
    result = []
    written = False
    for turn in turns:
        if turn["role"] == "tool":
            result.append(_result_of_user(turn) if written and results_of_users else turn)
            continue
        written = where(turn)
        if written:
            functions = [call.get("function", call) for call in turn["tool_calls"]]
            calls = [{"name": each["name"], "args": each.get("arguments") or {}} for each in functions]
            others = {key: value for key, value in turn.items() if key != "tool_calls"}
            result.append(others | {"content": write(calls, turn["content"])})
        else:
            result.append(turn)
    return result


def with_named_results(turns: Sequence[Turn]) -> list[Turn]:
    """Name the tool that a result comes from, where the result does not say it."""
    names = {
        call.get("id"): call.get("function", call).get("name")
        for turn in turns
        for call in turn.get("tool_calls") or ()
    }
    return [
        turn | {"name": names[turn.get("tool_call_id")]}
        if turn["role"] == "tool" and not turn.get("name") and names.get(turn.get("tool_call_id"))
        else turn
        for turn in turns
    ]


def with_short_ids(turns: Iterable[Turn]) -> list[Turn]:
    """Give calls and their results ids of nine letters or digits, the same ones at every render."""
    result = []
    for number, turn in enumerate(turns):
        changed = dict(turn)
        if turn.get("tool_calls"):
            changed["tool_calls"] = [
                call | {"id": _short(call.get("id") or f"call {index} of message {number}")}
                for index, call in enumerate(turn["tool_calls"])
            ]
        if turn.get("tool_call_id"):
            changed["tool_call_id"] = _short(turn["tool_call_id"])
        result.append(changed)
    return result


def _short(identifier: str) -> str:
    if _SHORT_ID.fullmatch(identifier):
        return identifier
    return hashlib.sha256(identifier.encode()).hexdigest()[:9]


def with_system_section(turns: Sequence[Turn], section: str) -> list[Turn]:
    """Let the system message end with a section; it is the system message if there is none at the beginning."""
    if turns and turns[0]["role"] == "system":
        return [turns[0] | {"content": _joined([turns[0]["content"], section])}, *turns[1:]]
    return [{"role": "system", "content": section}, *turns]


def with_single_calls(turns: Sequence[Turn]) -> list[Turn]:
    """Let one call follow the other, each with its result behind it."""
    result: list[Turn] = []
    waiting = list(turns)
    while waiting:
        turn = waiting.pop(0)
        calls = turn.get("tool_calls") or ()
        if len(calls) < 2:  # noqa: PLR2004 - several
            result.append(turn)
            continue
        end = next((index for index, later in enumerate(waiting) if later["role"] != "tool"), len(waiting))
        results, waiting = waiting[:end], waiting[end:]
        for index, call in enumerate(calls):
            result.append(turn | {"content": "" if index else turn["content"], "tool_calls": [call]})
            result += [each for each in results if each.get("tool_call_id") == call.get("id")]
            results = [each for each in results if each.get("tool_call_id") != call.get("id")]
        result += results
    return result


def with_results_of_users(turns: Iterable[Turn]) -> list[Turn]:
    """Give the results of tools as messages of the user."""
    return [_result_of_user(turn) if turn["role"] == "tool" else turn for turn in turns]


def _result_of_user(turn: Turn) -> Turn:
    label = f"Tool result ({turn['name']})" if turn.get("name") else "Tool result"
    return {"role": "user", "content": f"{label}: {turn['content']}"}


def with_folded_system(turns: Sequence[Turn], *, keep_first: bool) -> list[Turn]:
    """Put system messages in front of the user message that comes next.

    Args:
        turns: The conversation.
        keep_first: The template takes one system message at the beginning: those there become one.
    """
    result: list[Turn] = []
    waiting: list[str] = []
    turns = list(turns)
    if keep_first:
        first = next((index for index, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
        if first:
            result.append({"role": "system", "content": _joined(turn["content"] for turn in turns[:first])})
            turns = turns[first:]
    for turn in turns:
        if turn["role"] == "system":
            waiting.append(turn["content"])
        elif waiting and turn["role"] == "user":
            result.append(turn | {"content": _joined([*waiting, turn["content"]])})
            waiting = []
        elif waiting:
            result += [{"role": "user", "content": _joined(waiting)}, turn]
            waiting = []
        else:
            result.append(turn)
    if waiting:
        result.append({"role": "user", "content": _joined(waiting)})
    return result


def alternating(turns: Iterable[Turn]) -> list[Turn]:
    """Join neighbours of one role, and begin with the user (after the system message)."""
    result: list[Turn] = []
    for turn in turns:
        last = result[-1] if result else None
        if last and last["role"] == turn["role"] != "tool":
            calls = [*last.get("tool_calls", ()), *turn.get("tool_calls", ())]
            joined = last | turn | {"content": _joined([last["content"], turn["content"]])}
            result[-1] = joined | {"tool_calls": calls} if calls else joined
        else:
            result.append(turn)
    first = 1 if result and result[0]["role"] == "system" else 0
    if first < len(result) and result[first]["role"] == "assistant":
        result.insert(first, {"role": "user", "content": ""})
    return result


def _joined(texts: Iterable[str]) -> str:
    return _BETWEEN.join(text for text in texts if text)
