"""Converts LangChain's messages to the dictionaries that chat templates take.

    SystemMessage, HumanMessage      {"role": "system" | "user", "content": ...}
    AIMessage                        {"role": "assistant", "content": ..., "tool_calls": ..., "reasoning_content": ...}
    ToolMessage, FunctionMessage     {"role": "tool", "content": ..., "tool_call_id": ..., "name": ...}
    ChatMessage(role=...)            {"role": role, "content": ...}; "human", "ai" and "developer" mean "user",
                                     "assistant" and "system"

Content may be a string or a list of blocks: OpenAI's (`function_call`, `refusal`), Anthropic's (`tool_use`,
`tool_result`, `thinking`) and LangChain's own (`text`, `tool_call`, `reasoning`, ...), since a conversation may have
begun with another model. Texts are joined without separators. A call that another provider executed itself
(`server_tool_call` and `server_tool_result`, in one message) is a call and a result like any other.

Petals serves models of text only. Other blocks are treated by the kind of message (see `foreign_blocks`):

    people's messages    images, audio, video, files and blocks of unknown types raise: the author can remove them
    AI messages          text stays, however the provider wraps it; all else is left out, with one warning
    tools' results       text stays; a line replaces each image or file, with one warning; values, such as a list of
                         plain strings, are shown as JSON
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

from langchain_petals.chat.foreign_blocks import (
    LeftOut,
    as_json,
    inside,
    is_data,
    is_media,
    name_of,
    opened,
    reasoning_of,
    text_of,
)
from langchain_petals.chat.tools import written_in
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

Turn = dict[str, Any]
"""A message as chat templates take it."""

# the types of blocks, and the keys of their parts
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "text-plain": "text", "refusal": "refusal"}
_REASONING = ("reasoning", "thinking", "thought", "reasoning_content")
_ARGUMENTS = {
    "tool_use": ("id", "input"),
    "tool_call": ("id", "args"),
    "server_tool_call": ("id", "args"),
    "function_call": ("call_id", "arguments"),
    "custom_tool_call": ("call_id", "input"),
}
_RESULTS = {
    "tool_result": ("tool_use_id", "content"),
    "server_tool_result": ("tool_call_id", "output"),
    "function_response": ("id", "response"),
}
# Chunks repeat the message's `tool_calls` and `invalid_tool_calls`. The other kinds are for their provider only.
_IGNORED = ("server_tool_call_chunk", "tool_call_chunk", "redacted_thinking", "cache_point", "function_call_signature")
_FROM_PEOPLE = frozenset(
    [
        *(*_TEXTS, "json", "tool_result", "server_tool_result", "tool_use", "tool_call", "server_tool_call"),
        *("function_call", "invalid_tool_call", "reasoning", "thinking", "redacted_thinking"),
        *("tool_call_chunk", "server_tool_call_chunk"),
    ]
)
_ROLES = {"human": "user", "ai": "assistant", "developer": "system"}


def turns_from_messages(messages: Sequence[BaseMessage]) -> list[Turn]:
    """Return messages as chat templates take them; raises `InvalidRequestError` for one that cannot be shown."""
    if not messages:
        msg = "There is no message to answer; give at least one."
        raise InvalidRequestError(msg)
    left_out = LeftOut()
    turns = [turn for message in messages for turn in _turns_from(message, left_out)]
    left_out.warn()
    return turns


def _turns_from(message: BaseMessage, left_out: LeftOut) -> list[Turn]:
    turns: list[Turn] = []
    parts = _Parts(_role(message), left_out)
    for block in parts.blocks_of(message.content):
        kind, content = parts.opened(block)
        if kind in _RESULTS:
            turns += [parts.turn(message)] if parts else []
            turns.append(_tool_result(kind, content, left_out))
            parts = _Parts(_role(message), left_out)
        else:
            parts.add(block)
    calls = isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls)
    return [*turns, parts.turn(message, last=True)] if parts or calls or not turns else turns


class _Parts:
    """Collects the parts of a message's content, up to a tool's result or to the end of the content."""

    def __init__(self, role: str, left_out: LeftOut) -> None:
        self._role, self._left_out = role, left_out
        self._strict = role not in ("assistant", "tool")
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[Turn] = []
        self._broken_calls: list[tuple[Any, str]] = []
        self._in_line = False

    def __bool__(self) -> bool:
        return bool(self._texts or self._calls or self._broken_calls or self._reasoning)

    def blocks_of(self, content: Any) -> Sequence[Any]:
        """Return the blocks of a message's content.

        A tool's result holds blocks or values. Values become JSON: a joined list of strings would not show where each
        string ends.
        """
        blocks = content if isinstance(content, list | tuple) else [content]
        return [self.shown(content)] if self._role == "tool" and all(map(is_data, blocks)) else blocks

    def opened(self, block: Any) -> tuple[str, Turn]:
        """Return a block's kind and the dictionary with its content; see `foreign_blocks.opened`."""
        if not isinstance(block, dict):
            return "", {}
        kind, content = opened(block, typed=self._strict)
        if self._strict and kind not in _FROM_PEOPLE:
            raise InvalidRequestError(_refusal(content))
        return kind, content

    def add(self, block: Any) -> None:
        if not isinstance(block, dict):
            self._add_text(text_of(block))
            return
        kind, content = self.opened(block)
        if self._role == "tool" and (is_data(block) or kind in _REASONING or kind in _ARGUMENTS):
            self._add_line(self.shown(block))
        elif kind in _TEXTS and (kind != "text-plain" or isinstance(content.get("text"), str)):
            self._add_text(self._text(kind, content.get(_TEXTS[kind])))
        elif kind in _REASONING:
            self._reasoning.append(reasoning_of(content))
        elif kind in _ARGUMENTS:
            self._add_call(kind, content)
        elif kind == "invalid_tool_call":
            self._broken_calls.append((content.get("id"), text_of(content.get("args"))))
        elif kind == "json":
            self._add_line(as_json(content.get("json"), self._leave_out))
        elif kind not in _IGNORED:
            self._add_unknown(kind, content)

    def _text(self, kind: str, value: Any) -> str:
        if self._strict and not (value is None or isinstance(value, str)):
            msg = (
                f"A message holds a block of type {kind!r} whose text is of type {type(value).__name__}; give a string."
            )
            raise InvalidRequestError(msg)
        return text_of(value)

    def _add_unknown(self, kind: str, content: Turn) -> None:
        if self._strict:
            raise InvalidRequestError(_refusal(content))
        within = inside(kind, content)
        for block in within:
            self.add(block)
        if not within:
            shows = self._role == "tool" and not is_media(kind, content)
            line = self.shown(content) if shows else self._leave_out(name_of(kind, content))
            if self._role == "tool":
                self._add_line(line)

    def _leave_out(self, name: str) -> str:
        return self._left_out.add(self._role, name)

    def shown(self, value: Any) -> str:
        """Return a value as text: a string as it is, everything else as JSON."""
        return value if isinstance(value, str) else as_json(value, self._leave_out)

    def _add_text(self, text: str) -> None:
        if text:
            self._texts.append(f"\n{text}" if self._in_line and not text.startswith("\n") else text)
            self._in_line = False

    def _add_line(self, line: str) -> None:
        """Add a text on lines of its own."""
        self._in_line = self._in_line or bool(self._texts and not self._texts[-1].endswith("\n"))
        self._add_text(line)
        self._in_line = True

    def _add_call(self, kind: str, content: Turn) -> None:
        id_key, key = _ARGUMENTS[kind]
        identifier = next((content[each] for each in (id_key, "toolUseId") if content.get(each)), None)
        given = content.get(key, content.get("args")) or {}
        arguments = _parsed(given) if isinstance(given, str) else given
        if kind == "custom_tool_call":
            arguments = {"__arg1": text_of(given)}  # LangChain's name for the text that such a tool takes
        if not isinstance(arguments, dict):
            self._broken_calls.append((identifier, self.shown(given)))
        elif isinstance(name := content.get("name"), str):
            self._calls.append(_call(name, arguments, identifier if isinstance(identifier, str) else None))
        elif not self._strict:
            self._leave_out("a call without a name")

    def turn(self, message: BaseMessage, *, last: bool = False) -> Turn:
        """Return the collected parts as a turn of `message`; the last turn also holds the message's own calls."""
        turn: Turn = {"role": _role(message), "content": "".join(self._texts)}
        if message.name:
            turn["name"] = message.name
        if isinstance(message, ToolMessage):
            turn["tool_call_id"] = message.tool_call_id
        if turn["role"] == "assistant":
            own = message if isinstance(message, AIMessage) else AIMessage("")  # a ChatMessage has only blocks
            reasoning = "".join(self._reasoning)
            if last and not reasoning:
                reasoning = text_of(message.additional_kwargs.get("reasoning_content"))
            if reasoning:
                turn["reasoning_content"] = reasoning
            # blocks repeat `tool_calls` and `invalid_tool_calls`; these go into the last turn, after all results
            known = [call["id"] for call in (*own.tool_calls, *own.invalid_tool_calls)]
            nameless = [_call(call["name"], call["args"], None) for call in own.tool_calls]
            calls = [call for call in self._calls if call.get("id") not in known and call not in nameless]
            broken = [text for identifier, text in self._broken_calls if identifier not in known]
            if last:
                calls[:0] = [_call(call["name"], call["args"], call["id"]) for call in own.tool_calls]
                broken[:0] = [written_in(call) for call in own.invalid_tool_calls]
            if calls:
                turn["tool_calls"] = calls
            # a call that could not be parsed stays in the text that the model wrote
            turn["content"] += "".join(broken)
        return turn


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return _ROLES.get(message.role, message.role)
    for kind, role in ((SystemMessage, "system"), (HumanMessage, "user"), (AIMessage, "assistant")):
        if isinstance(message, kind):
            return role
    if isinstance(message, ToolMessage | FunctionMessage):
        return "tool"
    msg = (
        f"{type(message).__name__} has no role in a conversation; give SystemMessage, HumanMessage, AIMessage, "
        "ToolMessage or ChatMessage."
    )
    raise InvalidRequestError(msg)


def _call(name: str, arguments: dict[str, Any], identifier: str | None) -> Turn:
    call: Turn = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return call | {"id": identifier} if identifier else call


def _parsed(written: str) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return None


def _tool_result(kind: str, content: Turn, left_out: LeftOut) -> Turn:
    """Return a tool's result inside another message as a turn of its own."""
    id_key, key = _RESULTS[kind]
    identifier = text_of(content.get(id_key, content.get("toolUseId")))
    result = "" if content.get(key) is None else content[key]
    parts = _Parts("tool", left_out)
    if kind != "tool_result":
        result = parts.shown(result)  # a value, not blocks
    for block in parts.blocks_of(result):
        parts.add(block)
    return parts.turn(ToolMessage("", tool_call_id=identifier))


def _refusal(block: Turn) -> str:
    kind = block.get("type")
    if isinstance(kind, str) and is_media(kind, block):
        return (
            f"A message holds a content block of type {kind!r}, but Petals serves models of text only. Take it out, or "
            "give a description in words."
        )
    keys = sorted(map(str, block))
    return f"A message holds a content block of unknown type {kind!r} (keys {keys}); give text blocks."
