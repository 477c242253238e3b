"""Pieces of a generation become chunks and a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from langchain_petals.chat.reasoning import ReasoningSplitter
from langchain_petals.chat.response import ChatResponse
from langchain_petals.chat.tools.formats import HERMES
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request
from langchain_petals.pieces import Piece

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.chat.tools.parser import ToolCallParser


def answer(
    remembered: list[Any] | None = None, *, started: bool = False, parser: ToolCallParser | None = None
) -> ChatResponse:
    return ChatResponse(
        Generation(Request([1, 2, 3], 100)),
        model_name="m",
        splitter=ReasoningSplitter(started=started),
        parser=parser,
        token_text=str,
        counts_prompt=True,
        numbers_blocks=False,
        remember=lambda text, tokens, _: (remembered if remembered is not None else []).append((text, list(tokens))),
    )


def pieces(*texts: str) -> list[Piece]:
    """Return one piece of one token for each text; the last one ends the answer."""
    last = len(texts) - 1
    return [
        Piece(text, index + 1, "stop" if index == last else None, tokens=(index,)) for index, text in enumerate(texts)
    ]


def added(answer: ChatResponse, pieces: Sequence[Piece]) -> tuple[AIMessageChunk, AIMessage]:
    chunks = [chunk.message for piece in pieces if (chunk := answer.add(piece)) is not None]
    whole = chunks[0]
    for each in chunks[1:]:
        whole += each
    message = answer.result().message
    assert isinstance(whole, AIMessageChunk)
    assert isinstance(message, AIMessage)
    assert whole.content == message.content
    assert whole.additional_kwargs == message.additional_kwargs
    assert whole.usage_metadata == message.usage_metadata
    assert whole.response_metadata == message.response_metadata
    assert whole.tool_calls == message.tool_calls
    nameless = [{**call, "error": None} for call in message.invalid_tool_calls]  # a stream cannot say what is wrong
    assert whole.invalid_tool_calls == nameless
    return whole, message


def test_chunks_and_whole_message_have_the_same_text() -> None:
    _, message = added(answer(), pieces("He", "", "llo", ""))
    assert message.content == "Hello"
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == 4
    usage = message.response_metadata.pop("token_usage")
    assert usage["completion_tokens"] == 4
    assert message.response_metadata == {"finish_reason": "stop", "model_name": "m", "model_provider": "petals"}


def test_the_last_chunk_and_the_whole_message_tell_trips_and_tokens_that_cost_none() -> None:
    response = answer()
    generation = response.generation
    generation.reused_tokens, generation.trips = 2, 3
    generation.forced_tokens, generation.drafted_tokens, generation.accepted_tokens = 4, 7, 5
    _, message = added(response, pieces(*"0123456789ab"))
    assert message.response_metadata["token_usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 12,
        "total_tokens": 15,
        "cached_tokens": 2,
        "trips": 3,
        "forced_tokens": 4,
        "drafted_tokens": 7,
        "accepted_tokens": 5,
    }
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"] == {"forced": 4, "accepted": 5}


@pytest.mark.parametrize("started", [False, True])
def test_chunks_and_whole_message_have_the_same_reasoning(*, started: bool) -> None:
    texts = ["<think>", "6 *", " 7", "</thi", "nk>\n", "\n4", "2"]
    _, message = added(answer(started=started), pieces(*texts[started:]))
    assert message.content == "42"
    assert message.additional_kwargs == {"reasoning_content": "6 * 7"}
    assert [block["type"] for block in message.content_blocks] == ["reasoning", "text"]
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_token_details"] == {"reasoning": 5 - started}


@pytest.mark.parametrize(
    ("said", "name", "args", "error"),
    [
        ('{"name": "f", "arguments": {"x": "abc', "f", '{"x": "abc', "the answer ends in the middle"),
        ('{"name": "f", "arguments": {"x": "abc\\', "f", '{"x": "abc\\', "the answer ends in the middle"),
        ('{"name": "f", "arguments": {"x": [1, {"y": 2}', "f", '{"x": [1, {"y": 2}', "the answer ends in the middle"),
        ('{"name": "f", "arguments": {"x": 1}</tool_call>', "f", '{"x": 1}', "its JSON is not complete"),
        ('{"name": "f", "arguments": {"x": 1, "y": }}</tool_call>', "f", '{"x": 1, "y": }', "it is not valid JSON"),
        ('{"name": "f", "argu', "f", "", "the answer ends in the middle"),
        ('{"name": "f", "arguments": {}, "arguments": {}}', "f", "{} {}", "it has arguments twice"),
        (f'{{"name": "f", "arguments": {{"x": {"1" * 5000}}}}}', "f", f'{{"x": {"1" * 5000}}}', "it is not valid JSON"),
        (
            f'{{"name": "f", "arguments": {{"x": {"[" * 100_000}{"]" * 100_000}}}}}',
            "f",
            f'{{"x": {"[" * 100_000}{"]" * 100_000}}}',
            "it is not valid JSON",
        ),
        ('{"arguments": {"x": 1}}', None, '{"x": 1}', "it names no tool"),
        ('{"name": "f", "arguments": "{}"}', "f", '"{}"', "its arguments are no JSON object"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_call_that_broke_off_is_invalid_in_chunks_and_whole_message(
    said: str, name: str | None, args: str, error: str, size: int
) -> None:
    """LangChain completes JSON that is cut off; the call must stay invalid."""
    said = "<tool_call>\n" + said
    size = max(size, len(said) // 40)
    cut = [said[at : at + size] for at in range(0, len(said), size)]
    _, message = added(answer(parser=HERMES.parser([])), pieces(*cut, ""))
    assert not message.tool_calls
    assert message.response_metadata["finish_reason"] == "stop"
    [call] = message.invalid_tool_calls
    assert call["name"] == name
    assert (call["args"] or "").startswith(args)
    assert error in (call["error"] or "")


def test_text_that_is_no_call_is_reported_as_written() -> None:
    said = "<tool_call>f(1)</tool_call>"
    _, message = added(answer(parser=HERMES.parser([])), pieces(*said, ""))
    assert [call["args"] for call in message.invalid_tool_calls] == [said]


def test_pieces_without_content_make_no_chunk() -> None:
    silent, _ = pieces("", "")
    assert answer().add(silent) is None


def test_the_text_is_remembered_before_the_last_chunk_is_returned() -> None:
    remembered: list[Any] = []
    ongoing = answer(remembered)
    *first, last = pieces("<think>a</think>", "b", "")
    for piece in first:
        ongoing.add(piece)
    assert not remembered
    ongoing.add(last)
    assert remembered == [("<think>a</think>b", [0, 1, 2])]
