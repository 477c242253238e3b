"""Reshapes conversations to what a template can render.

Many templates support only a part of LangChain's conversations: no system messages, no tools, no names, or only users
and answers in strict alternation. Other parts are written in a form that the template supports, so nothing is lost:

    names of users               `Alice: text`, in the content. Names of other roles do not say who speaks.
    tool calls                   in the assistant's content, as the model writes them (see `chat.tools`); also where a
                                 template shows calls, but not the text beside them (but see `TextsBeforeCalls`)
    ids of calls                 nine letters or digits, where the template takes no others
    several calls at once        one call after the other, each followed by its result
    results of tools             a user's message, `Tool result (name): text`
    tools                        described at the end of the system message
    system messages if refused   put in front of the next user message, with an empty line in between; also where the
                                 template drops them once a tool was called
    later system messages        the same, where the template takes one at the beginning only
    neighbours of one role       one message, with an empty line in between
    an answer at the beginning   after an empty message of the user
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_petals.chat.messages import Turn

WriteCalls = Callable[[Sequence[Any], str], str]
"""Returns the text of an answer: its content, and after it its calls (`name` and `args` of each)."""


def with_names(turns: Iterable[Turn]) -> list[Turn]:
    """Return the conversation with the names of users in their messages."""
    return [
        turn | {"content": f"{turn['name']}: {turn['content']}"}
        if turn["role"] == "user" and turn.get("name")
        else turn
        for turn in turns
    ]


def with_written_calls(
    turns: Iterable[Turn], write: WriteCalls, *, where: Callable[[Turn], bool], results_of_users: bool
) -> list[Turn]:
    """Return the conversation with tool calls in the content of each message for which `where` returns true.

    With `results_of_users`, the results of these calls become messages of the user.
    """
    result = []
    written = False
    for turn in turns:
        if turn["role"] == "tool":
            result.append(result_of_user(turn) if written and results_of_users else turn)
        elif written := where(turn):
            functions = [call.get("function", call) for call in turn["tool_calls"]]
            calls = [{"name": each["name"], "args": each.get("arguments") or {}} for each in functions]
            others = {key: value for key, value in turn.items() if key != "tool_calls"}
            result.append(others | {"content": write(calls, turn["content"])})
        else:
            result.append(turn)
    return result


def with_named_results(turns: Sequence[Turn]) -> list[Turn]:
    """Return the conversation with the name of the tool in each result, where the result lacks it."""
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
    """Return the conversation with ids of nine letters or digits for calls and results, the same at every render."""
    result = []
    for number, turn in enumerate(turns):
        changed = dict(turn)
        if turn.get("tool_calls"):
            changed["tool_calls"] = [
                call | {"id": _short_id(call.get("id") or f"call {index} of message {number}")}
                for index, call in enumerate(turn["tool_calls"])
            ]
        if turn.get("tool_call_id"):
            changed["tool_call_id"] = _short_id(turn["tool_call_id"])
        result.append(changed)
    return result


def _short_id(identifier: str) -> str:
    is_short = re.fullmatch(r"[A-Za-z0-9]{9}", identifier)
    return identifier if is_short else hashlib.sha256(identifier.encode()).hexdigest()[:9]


def with_system_section(turns: Sequence[Turn], section: str) -> list[Turn]:
    """Return the conversation with a section at the end of its first system message, which is added if missing."""
    if turns and turns[0]["role"] == "system":
        return [turns[0] | {"content": _joined([turns[0]["content"], section])}, *turns[1:]]
    return [{"role": "system", "content": section}, *turns]


def with_single_calls(turns: Sequence[Turn]) -> list[Turn]:
    """Return the conversation with one call in each answer, followed by its result."""
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


def result_of_user(turn: Turn) -> Turn:
    """Return a tool's result as a message of the user."""
    label = f"Tool result ({turn['name']})" if turn.get("name") else "Tool result"
    return {"role": "user", "content": f"{label}: {turn['content']}"}


def with_folded_system(turns: Sequence[Turn], *, keep_first: bool) -> list[Turn]:
    """Return the conversation with system messages as the beginning of the next user message.

    With `keep_first`, the system messages at the beginning are joined to one that stays.
    """
    result: list[Turn] = []
    first = list(itertools.takewhile(lambda turn: turn["role"] == "system", turns)) if keep_first else []
    if first:
        result.append({"role": "system", "content": _joined(turn["content"] for turn in first)})
    waiting: list[str] = []
    for turn in turns[len(first) :]:
        if turn["role"] == "system":
            waiting.append(turn["content"])
            continue
        if waiting and turn["role"] == "user":
            result.append(turn | {"content": _joined([*waiting, turn["content"]])})
        else:
            result += [{"role": "user", "content": _joined(waiting)}, turn] if waiting else [turn]
        waiting = []
    return [*result, {"role": "user", "content": _joined(waiting)}] if waiting else result


def alternating(turns: Iterable[Turn]) -> list[Turn]:
    """Return the conversation with neighbours of one role joined; the first after the system message is a user's."""
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


class TextsBeforeCalls:
    """Keeps the text before calls if a template writes the calls of an answer but drops its text, as Mistral's do.

    The calls cannot go into the content instead, since their results would have to become messages of the user. So the
    template renders the calls without the text, and with a placeholder before the first call's name. Afterwards the
    text is inserted. `beginning` is the text with which the template begins a call, up to the call's name.
    """

    def __init__(self, write: WriteCalls, beginning: str, placeholders: Iterable[str]) -> None:
        self._write, self._beginning, self._placeholders = write, beginning, iter(placeholders)
        self._texts: dict[str, str] = {}

    def take(self, turns: Iterable[Turn]) -> list[Turn]:
        """Return the conversation without texts beside calls; a placeholder precedes the first call's name instead."""
        return [
            self._without_text(turn) if turn.get("tool_calls") and turn["content"].strip() else turn for turn in turns
        ]

    def _without_text(self, turn: Turn) -> Turn:
        placeholder = next(self._placeholders)
        self._texts[placeholder] = turn["content"]
        first, *others = turn["tool_calls"]
        function = first.get("function", first)
        marked = function | {"name": placeholder + function["name"]}
        first = first | {"function": marked} if "function" in first else marked
        return turn | {"content": "", "tool_calls": [first, *others]}

    def put_back(self, rendered: str) -> str:
        """Return the rendered conversation with the texts in it."""
        for placeholder, text in self._texts.items():
            call = [{"name": placeholder, "args": {}}]
            between = self._write(call, text).removeprefix(text).removesuffix(self._write(call, ""))
            rendered = rendered.replace(self._beginning + placeholder, text + between + self._beginning.lstrip())
        return rendered


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)
