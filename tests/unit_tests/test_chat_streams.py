"""A stream, joined, is the message that invoke gives: text, reasoning and tool calls, whatever the output version."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from pydantic import BaseModel
from saying_model import SayingModel

from langchain_petals import ChatPetals
from langchain_petals.chat.tools.invalid_calls import arguments_of, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerFast

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>ai\n<think>"
)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Age(BaseModel):
    """An age."""

    years: int


@pytest.fixture
def saying(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., ChatPetals]:
    """Return a factory of chat models that say a text."""

    def make(text: str, **fields: Any) -> ChatPetals:
        client = SayingModel(tiny_tokenizer, text)
        own = {"temperature": 0, "max_tokens": 300, "session_cache": 0, "client": client, "tokenizer": tiny_tokenizer}
        return ChatPetals(model="saying", **own | fields)

    return make


def blocks(message: AIMessage) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in block.items() if key not in ("id", "index")} for block in message.content_blocks
    ]


@pytest.mark.parametrize("version", ["v0", "v1"])
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Hello.", ["text"]),
        ("<think>Hm.</think>Hello.", ["reasoning", "text"]),
        (CALL, ["tool_call"]),
        (f"So:\n{CALL}", ["text", "tool_call"]),
        (f"<think>Hm.</think>\n{CALL}\n{CALL}", ["reasoning", "tool_call", "tool_call"]),
    ],
)
def test_a_stream_joins_to_the_message(
    saying: Callable[..., ChatPetals], version: str, text: str, kinds: list[str]
) -> None:
    chat = saying(text, output_version=version).bind_tools([add])
    whole = chat.invoke("hi")
    assert [block["type"] for block in blocks(whole)] == kinds
    first, *rest = chat.stream("hi")
    joined = sum(rest, first)
    assert isinstance(joined, AIMessageChunk)
    assert blocks(joined) == blocks(whole)
    assert [(call["name"], call["args"]) for call in joined.tool_calls] == [
        (call["name"], call["args"]) for call in whole.tool_calls
    ]
    *_, end = chat.stream_events("hi", version="v3")
    assert end["event"] == "message-finish"


LONG = '<tool_call>\n{"name": "say", "arguments": {"text": "rm -rf /tmp/build/cache/old"}}\n</tool_call>'


def say(text: str) -> str:
    """Say something."""
    return text


@pytest.mark.parametrize("choice", ["auto", "any"])
@pytest.mark.parametrize(
    ("text", "missing", "reason"),
    [(LONG, 0, "tool_calls"), (LONG, 6, "length"), (f"{LONG}\nThat is what I would do.", 0, "length")],
)
def test_a_call_that_the_token_limit_cut_is_invalid_and_a_complete_call_is_valid(  # noqa: PLR0917 - pytest passes them by name
    saying: Callable[..., ChatPetals],
    tiny_tokenizer: PreTrainedTokenizerFast,
    choice: str,
    text: str,
    missing: int,
    reason: str,
) -> None:
    """An agent must not run a call that the model did not complete."""
    room = len(tiny_tokenizer(LONG, add_special_tokens=False)["input_ids"]) + 3 - missing
    chat = saying(text, max_tokens=room).bind_tools([say], tool_choice=choice)
    first, *rest = chat.stream("hi")
    for answer in (chat.invoke("hi"), sum(rest, first)):
        assert answer.response_metadata["finish_reason"] == reason
        wanted = "rm -rf /tmp/build/cache/old"
        if missing == 0:
            assert [call["args"]["text"] for call in answer.tool_calls] == [wanted]
            assert answer.invalid_tool_calls == []
            continue
        assert answer.tool_calls == []
        [cut] = answer.invalid_tool_calls
        assert cut["name"] == "say"
        assert wanted.startswith(arguments_of(cut)["text"])
        assert "the token limit ended this call" in problem_of(cut)
    if missing:
        assert json.loads(chat.invoke("hi").invalid_tool_calls[0]["args"])["text"]


def test_a_grammar_leaves_no_room_for_reasoning_that_the_prompt_began(saying: Callable[..., ChatPetals]) -> None:
    chat = saying('{"years": 5}', chat_template=THINKING)
    assert chat.with_structured_output(Age).invoke("hi") == Age(years=5)
    chat = saying(CALL, chat_template=THINKING)
    assert [call["args"] for call in chat.bind_tools([add], tool_choice="any").invoke("hi").tool_calls] == [
        {"a": 1, "b": 2}
    ]
    answer = saying("Hm.</think>5", chat_template=THINKING).invoke("hi")
    assert (answer.text, answer.additional_kwargs) == ("5", {"reasoning_content": "Hm."})
