"""LangChain's messages as the dictionaries that chat templates take.

What goes in, and what comes of it:

    SystemMessage, HumanMessage      {"role": "system" | "user", "content": ...}
    AIMessage                        {"role": "assistant", "content": ..., "tool_calls": ..., "reasoning_content": ...}
    ToolMessage, FunctionMessage     {"role": "tool", "content": ..., "tool_call_id": ..., "name": ...}
    ChatMessage(role=...)            {"role": role, "content": ...}

Content may be a string or a list of blocks: OpenAI's, Anthropic's (`tool_use`, `tool_result`, `thinking`) and
LangChain's own (`text`, `tool_call`, `reasoning`, ...). Texts are joined as they are. Petals serves models of text
only: images, audio, video and files raise.
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

_TEXTS = ("text", "input_text", "output_text", "text-plain")
_IGNORED = ("redacted_thinking", "server_tool_call_chunk", "tool_call_chunk", "citation")
_CALLS = ("tool_use", "tool_call")
_NOT_TEXT = ("image", "image_url", "input_image", "audio", "input_audio", "video", "file", "document", "media")


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
    blocks = [{"type": "text", "text": message.content}] if isinstance(message.content, str) else message.content
    parts = _Parts()
    for block in blocks:
        if isinstance(block, dict) and block.get("type") == "tool_result":
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
        self._any_turn = False

    def add(self, block: str | Turn) -> None:
        if isinstance(block, str):
            self._texts.append(block)
            return
        kind = block.get("type")
        if kind in _TEXTS:
            self._texts.append(str(block.get("text", "")))
        elif kind == "reasoning":
            self._reasoning.append(str(block.get("reasoning") or ""))
        elif kind == "thinking":
            self._reasoning.append(str(block.get("thinking") or ""))
        elif kind in _CALLS:
            arguments = block.get("input") if kind == "tool_use" else block.get("args")
            self._calls.append(_call(block.get("name"), arguments, block.get("id")))
        elif kind == "non_standard":
            self.add(block.get("value") or {})
        elif kind == "json":
            self._texts.append(json.dumps(block.get("json"), ensure_ascii=False))
        elif kind not in _IGNORED:
            raise InvalidRequestError(_refusal(kind, block))

    def take(self, message: BaseMessage, *, last: bool = False) -> Iterator[Turn]:
        """Return what has come together as a turn of `message`, if there is anything, and forget it."""
        if self._texts or self._calls or self._reasoning or (last and not self._any_turn):
            yield self._turn(message)
        self._any_turn = True
        self._texts, self._reasoning, self._calls = [], [], []

    def _turn(self, message: BaseMessage) -> Turn:
        turn: Turn = {"role": _role(message), "content": "".join(self._texts)}
        if message.name:
            turn["name"] = message.name
        if isinstance(message, ToolMessage):
            turn["tool_call_id"] = message.tool_call_id
        if isinstance(message, AIMessage):
            reasoning = "".join(self._reasoning) or message.additional_kwargs.get("reasoning_content")
            if reasoning:
                turn["reasoning_content"] = reasoning
            # blocks of Anthropic's and LangChain's kind repeat what is in `tool_calls`
            known = {call["id"] for call in message.tool_calls}
            calls = [_call(call["name"], call["args"], call["id"]) for call in message.tool_calls]
            calls += [call for call in self._calls if call.get("id") not in known]
            if calls:
                turn["tool_calls"] = calls
            # what the model wrote and could not be parsed is still what the model wrote
            turn["content"] += "".join(call["args"] or "" for call in message.invalid_tool_calls)
        return turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
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
    """Return a result in Anthropic's form, which comes inside a human message, as a turn of its own."""
    content = block.get("content") or ""
    parts = _Parts()
    for inner in [content] if isinstance(content, str) else content:
        parts.add(inner)
    message = ToolMessage("", tool_call_id=str(block.get("tool_use_id", "")))
    return next(parts.take(message, last=True))


def _refusal(kind: Any, block: Turn) -> str:
    if kind in _NOT_TEXT:
        return (
            f"A message holds a content block of type {kind!r}, but Petals serves models of text only. Take it out, or "
            "give a description in words."
        )
    return f"A message holds a content block of unknown type {kind!r} (keys {sorted(block)}); give text blocks."
