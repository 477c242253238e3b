"""LangChain's messages become turns for chat templates; no content is dropped silently."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)

from langchain_petals.chat.messages import turns_from_messages
from langchain_petals.errors import InvalidRequestError

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}, "id": "c1"}


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        (SystemMessage("be kind"), {"role": "system", "content": "be kind"}),
        (HumanMessage("hi", name="ann"), {"role": "user", "content": "hi", "name": "ann"}),
        (AIMessage(""), {"role": "assistant", "content": ""}),
        (ChatMessage("psst", role="narrator"), {"role": "narrator", "content": "psst"}),
        (ChatMessage("hi", role="human"), {"role": "user", "content": "hi"}),
        (ChatMessage("hi", role="ai"), {"role": "assistant", "content": "hi"}),
        (ChatMessage("be kind", role="developer"), {"role": "system", "content": "be kind"}),
        (ToolMessage("3", tool_call_id="c1"), {"role": "tool", "content": "3", "tool_call_id": "c1"}),
        (
            ToolMessage("Error: no such town", tool_call_id="c1", status="error"),
            {"role": "tool", "content": "Error: no such town", "tool_call_id": "c1"},
        ),
        (FunctionMessage("3", name="add"), {"role": "tool", "content": "3", "name": "add"}),
        (HumanMessage([]), {"role": "user", "content": ""}),
        (HumanMessage(["a", {"type": "text", "text": "b"}]), {"role": "user", "content": "ab"}),
        (
            HumanMessage([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]),
            {"role": "user", "content": "a"},
        ),
        (
            ToolMessage([{"type": "json", "json": {"β": 1}}], tool_call_id="c1"),
            {"role": "tool", "content": '{"β": 1}', "tool_call_id": "c1"},
        ),
        (
            ToolMessage(["東京", "London"], tool_call_id="c1"),
            {"role": "tool", "content": '["東京", "London"]', "tool_call_id": "c1"},
        ),
        (ToolMessage([], tool_call_id="c1"), {"role": "tool", "content": "[]", "tool_call_id": "c1"}),
        (
            ToolMessage(["a", {"type": "text", "text": "b"}], tool_call_id="c1"),
            {"role": "tool", "content": "ab", "tool_call_id": "c1"},
        ),
        (FunctionMessage(["a", "b"], name="add"), {"role": "tool", "content": '["a", "b"]', "name": "add"}),
        (HumanMessage([{"type": "text-plain", "text": "a file"}]), {"role": "user", "content": "a file"}),
        (AIMessage([{"type": "refusal", "refusal": "No."}]), {"role": "assistant", "content": "No."}),
    ],
)
def test_every_kind_of_message_becomes_a_turn(message: BaseMessage, turn: dict[str, Any]) -> None:
    assert turns_from_messages([message]) == [turn]


@pytest.mark.parametrize(
    "content",
    [
        "sum",
        [{"type": "text", "text": "sum"}, {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}}],
        [{"type": "text", "text": "sum"}, {"type": "tool_call", "id": "c1", "name": "add", "args": {"a": 1}}],
        [
            {"type": "text", "text": "sum"},
            {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
        ],
        [{"type": "text", "text": "sum"}, {"type": "tool_call_chunk", "id": "c1", "name": "add", "args": '{"a": 1}'}],
        [{"type": "text", "text": "sum"}, {"type": "non_standard", "value": {"type": "text", "text": ""}}],
    ],
)
def test_tool_calls_in_blocks_and_fields_appear_once(content: str | list[Any]) -> None:
    message = AIMessage(content, tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}])
    assert turns_from_messages([message]) == [{"role": "assistant", "content": "sum", "tool_calls": [CALL]}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
        {"type": "function_call", "id": "fc1", "call_id": "c1", "name": "add", "arguments": '{"a": 1}'},
    ],
)
def test_tool_calls_only_in_blocks_are_read(block: dict[str, Any]) -> None:
    assert turns_from_messages([AIMessage([block])]) == [{"role": "assistant", "content": "", "tool_calls": [CALL]}]


BROKEN = {"name": "add", "args": '{"a": ', "id": "c1", "error": "cut"}


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("so: ", invalid_tool_calls=[BROKEN]),
        AIMessage([{"type": "text", "text": "so: "}, {"type": "invalid_tool_call", **BROKEN}]),
        AIMessage(
            [{"type": "text", "text": "so: "}, {"type": "invalid_tool_call", **BROKEN}], invalid_tool_calls=[BROKEN]
        ),
        AIMessage(
            [
                {"type": "text", "text": "so: "},
                {"type": "function_call", "call_id": "c1", "name": "add", "arguments": '{"a": '},
            ],
            invalid_tool_calls=[BROKEN],
        ),
    ],
)
def test_a_call_that_could_not_be_parsed_stays_in_the_text(message: AIMessage) -> None:
    assert turns_from_messages([message]) == [{"role": "assistant", "content": 'so: {"a": '}]


def test_a_tool_that_another_provider_ran_is_a_call_and_a_result() -> None:
    message = AIMessage(
        [
            {"type": "reasoning", "reasoning": "I need it."},
            {"type": "server_tool_call", "id": "s1", "name": "web_search", "args": {"q": "β"}},
            {"type": "server_tool_result", "tool_call_id": "s1", "status": "success", "output": [{"title": "β"}]},
            {"type": "text", "text": "Beta."},
        ],
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}],
    )
    search = {"type": "function", "function": {"name": "web_search", "arguments": {"q": "β"}}, "id": "s1"}
    assert turns_from_messages([message]) == [
        {"role": "assistant", "content": "", "reasoning_content": "I need it.", "tool_calls": [search]},
        {"role": "tool", "content": '[{"title": "β"}]', "tool_call_id": "s1"},
        {"role": "assistant", "content": "Beta.", "tool_calls": [CALL]},
    ]


def test_calls_after_a_result_are_kept() -> None:
    message = AIMessage(
        [{"type": "server_tool_result", "tool_call_id": "s1", "status": "success", "output": "x"}],
        tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}],
    )
    assert turns_from_messages([message]) == [
        {"role": "tool", "content": "x", "tool_call_id": "s1"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
    ]


def test_results_inside_a_human_message_become_turns_of_their_own() -> None:
    message = HumanMessage(
        [
            {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "green"}]},
            {"type": "tool_result", "tool_use_id": "c2", "content": "blue", "is_error": True},
            {"type": "tool_result", "tool_use_id": "c3", "content": ["red", "black"]},
            {"type": "text", "text": "and now?"},
        ]
    )
    assert turns_from_messages([message]) == [
        {"role": "tool", "content": "green", "tool_call_id": "c1"},
        {"role": "tool", "content": "blue", "tool_call_id": "c2"},
        {"role": "tool", "content": '["red", "black"]', "tool_call_id": "c3"},
        {"role": "user", "content": "and now?"},
    ]


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("42", additional_kwargs={"reasoning_content": "6 * 7"}),
        AIMessage([{"type": "reasoning", "reasoning": "6 * 7"}, {"type": "text", "text": "42"}]),
        AIMessage([{"type": "thinking", "thinking": "6 * 7", "signature": "x"}, {"type": "text", "text": "42"}]),
    ],
)
def test_reasoning_stays_out_of_the_content(message: AIMessage) -> None:
    assert turns_from_messages([message]) == [{"role": "assistant", "content": "42", "reasoning_content": "6 * 7"}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        {"type": "image", "base64": "AA==", "mime_type": "image/png"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "audio", "base64": "AA==", "mime_type": "audio/wav"},
        {"type": "video", "url": "https://example.com/x.mp4"},
        {"type": "file", "base64": "AA==", "mime_type": "application/pdf"},
    ],
)
def test_blocks_without_text_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match=rf"type '{block['type']}'.*models of text only"):
        turns_from_messages([HumanMessage([{"type": "text", "text": "what is this?"}, block])])


def test_unknown_blocks_and_messages_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="unknown type 'hologram'"):
        turns_from_messages([HumanMessage([{"type": "hologram"}])])
    with pytest.raises(InvalidRequestError, match="RemoveMessage has no role"):
        turns_from_messages([RemoveMessage(id="1")])
    with pytest.raises(InvalidRequestError, match="no message"):
        turns_from_messages([])
