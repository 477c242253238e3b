"""One turn: the answers of the model, and the tools in between."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from scripted_chat import ScriptedChat

from langchain_petals.cli.conversations.turn import Cost, PromptReading, Turn
from langchain_petals.errors import SpanFailedError


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def turn_about(text: str) -> Turn:
    reading = PromptReading()
    return Turn(ScriptedChat(on_prefill=reading), [HumanMessage(text)], [add], reading)


def test_all_calls_of_a_message_run_before_the_model_is_asked_again() -> None:
    turn = turn_about("twice add")
    assert turn.asks_model
    asked = [turn.asks_model for event in turn if isinstance(event, dict) or event.type == "tool"]
    assert asked == [False, False, False, True]
    assert [message.type for message in turn.messages] == ["ai", "tool", "tool", "ai"]
    assert [message.text for message in turn.messages[1:3]] == ["3", "7"]
    assert turn.cost.answers == 2


def test_what_was_written_before_an_error_is_partial_and_no_message() -> None:
    turn = turn_about("fail")
    with pytest.raises(SpanFailedError):
        list(turn)
    assert (turn.partial, turn.messages, turn.answer) == ("half an answer", [], None)


def test_leaving_a_turn_early_ends_the_stream() -> None:
    events = iter(turn_about("pour 1000"))
    next(events)
    before = len(ScriptedChat.closed)
    events.close()
    assert ScriptedChat.closed[before:] == ["pour"]


def test_a_prompt_that_is_read_in_steps_says_how_far_it_is() -> None:
    said: list[str] = []
    reading = PromptReading()
    reading.show = said.append
    reading(1024, 2048)
    times = [reading.finished]
    reading(2048, 2048)
    times.append(reading.finished)
    assert [time is None for time in times] == [True, False]
    assert said == ["Reading the prompt: 1,024 of 2,048 tokens", "Waiting for the answer"]


def test_the_speed_leaves_out_what_the_prompts_took() -> None:
    cost = Cost(written=11, answers=1, wait=5.0, writing=2.0) + Cost(written=6, answers=1, wait=1.0, writing=1.0)
    assert cost.speed == pytest.approx(5.0)
    assert Cost(written=1, answers=1, writing=1.0).speed is None
    assert Cost().speed is None
