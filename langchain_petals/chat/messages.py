"""LangChain's messages as the dictionaries that chat templates take.

What goes in, and what comes of it:

    SystemMessage, HumanMessage      {"role": "system" | "user", "content": ...}
    AIMessage                        {"role": "assistant", "content": ..., "tool_calls": ..., "reasoning_content": ...}
    ToolMessage, FunctionMessage     {"role": "tool", "content": ..., "tool_call_id": ..., "name": ...}
    ChatMessage(role=...)            {"role": role, "content": ...}; "human", "ai" and "developer" are other words for
                                     "user", "assistant" and "system"

Content may be a string or a list of blocks: OpenAI's (`function_call`, `refusal`), Anthropic's (`tool_use`,
`tool_result`, `thinking`) and LangChain's own (`text`, `tool_call`, `reasoning`, ...), as conversations with other
models leave them. Texts are joined as they are, but for a tool's result that is a list of plain strings: that is what
the tool returned, and is shown as JSON. A tool that another provider ran itself (`server_tool_call` and
`server_tool_result`, in one message) is a call and a result like any other. Petals serves models of text only: images,
audio, video and files raise.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Turn = dict[str, Any]
"""A message as a chat template takes it."""

# where blocks have what they hold
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "text-plain": "text", "refusal": "refusal"}
_REASONING = {"reasoning": "reasoning", "thinking": "thinking"}
_ARGUMENTS = {"tool_use": "input", "tool_call": "args", "server_tool_call": "args"}
_RESULTS = {"tool_result": ("tool_use_id", "content"), "server_tool_result": ("tool_call_id", "output")}
# what becomes of the chunks is in `tool_calls` of the message, and in `invalid_tool_calls`
_IGNORED = ("redacted_thinking", "server_tool_call_chunk", "tool_call_chunk", "citation")
_NOT_TEXT = ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "document", "media")
_ROLES = {"human": "user", "ai": "assistant", "developer": "system"}


def turns(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Return messages as chat templates take them.

    Args:
        messages: A conversation; at least one message.

    Raises:
        InvalidRequestError: There is none, or one holds something other than text.
    """
    if not messages:
        msg = "There is no message to answer; give at least one."
        raise InvalidRequestError(msg)
    return [turn for message in messages for turn in _turns_of(message)]


def _turns_of(message: BaseMessage) -> Iterator[Turn]:
    content = _result(message.content) if _role(message) == "tool" else message.content
    parts = _Parts()
    for block in [content] if isinstance(content, str) else content:
        if isinstance(block, dict) and block.get("type") in _RESULTS:
            yield from parts.take(message)
            yield _tool_result(block)
        else:
            parts.add(block)
    yield from parts.take(message, last=True)


class _Parts:
    """What has been found in a message's content so far."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Turn] = []
        self._broken_calls: list[tuple[Any, str]] = []
        self._any_turn = False

    def add(self, block: str | Turn) -> None:
        if isinstance(block, str):
            self._texts.append(block)
            return
        kind = block.get("type")
        if kind in _TEXTS:
            self._texts.append(str(block.get(_TEXTS[kind]) or ""))
        elif kind in _REASONING:
            self._reasoning.append(str(block.get(_REASONING[kind]) or ""))
        elif kind in _ARGUMENTS:
            self._calls.append(_call(block.get("name"), block.get(_ARGUMENTS[kind]), block.get("id")))
        elif kind == "function_call":
            self._add_function_call(block)
        elif kind == "invalid_tool_call":
            self._broken_calls.append((block.get("id"), str(block.get("args") or "")))
        elif kind == "non_standard":
            self.add(block.get("value") or {})
        elif kind == "json":
            self._texts.append(json.dumps(block.get("json"), ensure_ascii=False))
        elif kind not in _IGNORED:
            raise InvalidRequestError(_refusal(kind, block))

    def _add_function_call(self, block: Turn) -> None:
        identifier, written = block.get("call_id"), str(block.get("arguments") or "{}")
        try:
            arguments = json.loads(written)
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            self._calls.append(_call(block.get("name"), arguments, identifier))
        else:
            self._broken_calls.append((identifier, written))

    def take(self, message: BaseMessage, *, last: bool = False) -> Iterator[Turn]:
        """Return what has come together as a turn of `message`, if there is anything, and forget it."""
        calls = isinstance(message, AIMessage) and bool(message.tool_calls or message.invalid_tool_calls)
        found = self._texts or self._calls or self._broken_calls or self._reasoning
        if found or (last and (calls or not self._any_turn)):
            yield self._turn(message, last=last)
        self._any_turn = True
        self._texts, self._reasoning, self._calls, self._broken_calls = [], [], [], []

    def _turn(self, message: BaseMessage, *, last: bool) -> Turn:
        turn: Turn = {"role": _role(message), "content": "".join(self._texts)}
        if message.name:
            turn["name"] = message.name
        if isinstance(message, ToolMessage):
            turn["tool_call_id"] = message.tool_call_id
        if isinstance(message, AIMessage):
            reasoning = "".join(self._reasoning) or (last and message.additional_kwargs.get("reasoning_content"))
            if reasoning:
                turn["reasoning_content"] = reasoning
            # blocks repeat what is in `tool_calls` and `invalid_tool_calls`, which come after all results
            known = {call["id"] for call in (*message.tool_calls, *message.invalid_tool_calls)}
            calls = [call for call in self._calls if call.get("id") not in known]
            broken = [text for identifier, text in self._broken_calls if identifier not in known]
            if last:
                calls[:0] = [_call(call["name"], call["args"], call["id"]) for call in message.tool_calls]
                broken[:0] = [call["args"] or "" for call in message.invalid_tool_calls]
            if calls:
                turn["tool_calls"] = calls
            # what the model wrote and could not be parsed is still what the model wrote
            turn["content"] += "".join(broken)
        return turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return _ROLES.get(message.role, message.role)
    if isinstance(message, ToolMessage | FunctionMessage):
        return "tool"
    for kind, role in ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant")):
        if isinstance(message, kind):
            return role
    msg = (
        f"{type(message).__name__} has no role in a conversation; give SystemMessage, HumanMessage, AIMessage, "
        "ToolMessage or ChatMessage."
    )
    raise InvalidRequestError(msg)


def _call(name: Any, arguments: Any, identifier: Any) -> Turn:
    call: Turn = {"type": "function", "function": {"name": name, "arguments": arguments or {}}}
    return call | {"id": identifier} if identifier else call


def _tool_result(block: Turn) -> Turn:
    """Return a result that comes inside another message as a turn of its own."""
    identifier, key = _RESULTS[block["type"]]
    content = "" if block.get(key) is None else block[key]
    if block["type"] == "server_tool_result" and not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False, default=str)  # a value of any kind, and not blocks
    content = _result(content)
    parts = _Parts()
    for inner in [content] if isinstance(content, str) else content:
        parts.add(inner)
    message = ToolMessage("", tool_call_id=str(block.get(identifier, "")))
    return next(parts.take(message, last=True))


def _result(content: str | list[str | Turn]) -> str | list[str | Turn]:
    """Return what a tool returned, as JSON if that was strings: LangChain takes a list of them for a message's content.

    Joined, they would be one text in which nothing shows where one ends.
    """
    if isinstance(content, list) and all(isinstance(item, str) for item in content):
        return json.dumps(content, ensure_ascii=False)
    return content


def _refusal(kind: Any, block: Turn) -> str:
    if kind in _NOT_TEXT:
        return (
            f"A message holds a content block of type {kind!r}, but Petals serves models of text only. Take it out, or "
            "give a description in words."
        )
    return f"A message holds a content block of unknown type {kind!r} (keys {sorted(block)}); give text blocks."
