"""Tools on a real swarm, with the bundled model: it calls what it has never seen, and an agent takes its steps."""

from __future__ import annotations

import asyncio
import json
import random
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from pydantic import BaseModel

from langchain_petals import ChatPetals
from tiny_model.data.tool_use.calls import tools_with
from tiny_model.data.tool_use.kinds import draw_tool
from tiny_model.data.words import Draw
from tiny_model.evaluation.handwritten import HANDWRITTEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.runnables import Runnable

    from langchain_petals.swarm import LocalSwarm

CASES = 60


@pytest.fixture
def chat(swarm: LocalSwarm) -> ChatPetals:
    """Return a greedy chat model."""
    return ChatPetals(**swarm.connection, temperature=0, max_tokens=160)


@pytest.fixture
def chat_for_many(chat: ChatPetals) -> ChatPetals:
    """Return one that keeps no sessions.

    Each request that comes later than those before it gets a session of its own, and if that were to be kept, with
    room for as much again: a server has not enough attention cache for so many of them.
    """
    return chat.model_copy(update={"session_cache": 0})


def bound(chat: ChatPetals, tools: Sequence[dict[str, Any]], **choice: Any) -> Runnable[Any, AIMessage]:
    """Bind tools that are written as a chat template shows them."""
    return chat.bind_tools([{"type": "function", "function": tool} for tool in tools], **choice)


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls of an answer; all that may be wrong with others is that the limit ended them."""
    assert all("the token limit ended" in (call["error"] or "") for call in message.invalid_tool_calls)
    return [(call["name"], call["args"]) for call in message.tool_calls]


def held_back(case: int, others: int = 0) -> tuple[list[dict[str, Any]], str, str, dict[str, Any]]:
    """Return tools that the model has never seen, a question for one of them, and the call that it asks for."""
    draw = Draw(random.Random(f"swarm/{others}/{case}"), held_back=True, new_wordings=False)
    tool = draw_tool(draw)
    tools = tools_with(draw, tool, others)
    question, arguments = tool.asks(draw)
    return [json.loads(each.written) for each in tools], question, tool.name, arguments


@pytest.mark.parametrize("choice", ["any", None], ids=["forced", "decided"])
async def test_tools_outside_of_the_training_data_are_called_right(
    chat_for_many: ChatPetals, choice: str | None
) -> None:
    cases = [held_back(case) for case in range(CASES)]
    answers = await asyncio.gather(
        *(bound(chat_for_many, tools, tool_choice=choice).ainvoke(question) for tools, question, _, _ in cases)
    )
    pairs = zip(answers, cases, strict=True)
    wrong = [(asked, answer) for answer, asked in pairs if calls_of(answer) != [(asked[2], asked[3])]]
    assert len(wrong) <= 0.1 * CASES, wrong


async def test_the_right_one_of_three_tools_is_called(chat_for_many: ChatPetals) -> None:
    cases = [held_back(case, others=2) for case in range(CASES)]
    answers = await asyncio.gather(*(bound(chat_for_many, tools).ainvoke(question) for tools, question, _, _ in cases))
    chosen = [
        [name for name, _ in calls_of(answer)] == [asked[2]] for answer, asked in zip(answers, cases, strict=True)
    ]
    assert sum(chosen) >= 0.7 * CASES


async def test_handwritten_questions_are_answered_with_the_right_calls(chat_for_many: ChatPetals) -> None:
    answers = await asyncio.gather(
        *(bound(chat_for_many, asked.tools).ainvoke(asked.question) for asked in HANDWRITTEN)
    )
    expected = [[] if asked.name is None else [(asked.name, asked.arguments)] for asked in HANDWRITTEN]
    wrong = [
        (asked.question, answer.content, answer.tool_calls)
        for asked, answer, calls in zip(HANDWRITTEN, answers, expected, strict=True)
        if calls_of(answer) != calls
    ]
    assert len(wrong) <= 0.2 * len(HANDWRITTEN), wrong


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        ("21 degrees", "The answer is 21 degrees."),
        ('{"population": 4250}', "The population is 4250."),
        ("Ein schöner Tag in Köln.", "Ein schöner Tag in Köln."),
        ("Error: No such city.", "The tool failed: No such city."),
    ],
)
def test_answers_use_the_results_of_tools(chat: ChatPetals, result: str, answer: str) -> None:
    tool = {
        "name": "look_up_town",
        "description": "Look up a town.",
        "parameters": {"properties": {"name": {"type": "string"}}, "required": ["name"], "type": "object"},
    }
    call = {"name": "look_up_town", "args": {"name": "Köln"}, "id": "call_1"}
    history = [
        HumanMessage("Look up the town of Köln."),
        AIMessage("", tool_calls=[call]),
        ToolMessage(result, tool_call_id="call_1"),
    ]
    said = bound(chat, [tool]).invoke(history)
    assert (said.text, said.tool_calls) == (answer, [])


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_an_agent_takes_two_steps_in_one_session(chat: ChatPetals) -> None:
    def multiply(a: int, b: int) -> int:
        """Multiply two numbers."""
        return a * b

    agent = create_agent(chat, [add, multiply])
    question = "Add 12 and 30. Then multiply 2 with the result."
    streamed: dict[str, AIMessageChunk] = {}
    final: Any = []
    modes: Any = ["messages", "values"]
    for mode, part in agent.stream({"messages": [HumanMessage(question)]}, stream_mode=modes):
        if mode == "values":
            final = part["messages"]
        elif isinstance(part[0], AIMessageChunk):
            chunk, identifier = part[0], str(part[0].id)
            streamed[identifier] = streamed[identifier] + chunk if identifier in streamed else chunk
    said = [message for message in final if isinstance(message, AIMessage)]
    assert [calls_of(message) for message in said] == [
        [("add", {"a": 12, "b": 30})],
        [("multiply", {"a": 2, "b": 42})],
        [],
    ]
    assert said[-1].text == "The answer is 84."
    assert [(chunk.text, calls_of(chunk)) for chunk in streamed.values()] == [
        (message.text, calls_of(message)) for message in said
    ]
    for before, now in pairwise([message.usage_metadata for message in said]):
        assert before is not None
        assert now is not None
        # all of the step before but the token that ended it, which was never sent
        assert now["input_token_details"]["cache_read"] == before["input_tokens"] + before["output_tokens"] - 1


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ADA = Person(name="Ada", age=36)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Person, ADA),
        (Person.model_json_schema(), ADA.model_dump()),
        (ProviderStrategy(Person, strict=True), ADA),
        (ToolStrategy(Person), ADA),
    ],
    ids=["class", "schema", "provider-strategy", "tool-strategy"],
)
def test_an_agent_answers_in_the_requested_response_format(chat: ChatPetals, form: Any, expected: Any) -> None:
    agent = create_agent(chat, [add], response_format=form)
    asked: Any = {"messages": [HumanMessage("The name is Ada and the age is 36.")]}
    assert agent.invoke(asked)["structured_response"] == expected
