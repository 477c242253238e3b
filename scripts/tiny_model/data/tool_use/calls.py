"""Generated conversations with tools: calls, their results, answers from these, and questions that need no tool."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tiny_model.data.conversations import (
    SYSTEM_PLAIN,
    Memory,
    add,
    count,
    fact,
    give_name,
    identity,
    repeat,
    small_talk,
    spell,
    unknown,
)
from tiny_model.data.styles import Conversation, Turn
from tiny_model.data.tool_use.arithmetic import OPERATION_NAMES, arithmetic_chain
from tiny_model.data.tool_use.kinds import draw_tool, look_up
from tiny_model.data.tool_use.tools import Tool, joined
from tiny_model.data.values import integer, text_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiny_model.data.words import Draw

MOST_TOOLS = 3
SYSTEM_WITH_TOOLS = (
    "Use the tools.",
    "You are an assistant with tools. Call one where it helps.",
    "You are a helpful assistant. You may call functions.",
    "Call a tool if you need it, and answer from what it says.",
)


def tools_with(draw: Draw, tool: Tool, others: int | None = None) -> list[Tool]:
    """Return a tool among up to two others that have other names, in any order."""
    if others is None:
        others = draw.rng.choices(range(MOST_TOOLS), (30, 35, 35))[0]
    tools = [tool]
    while len(tools) <= others:
        other = draw_tool(draw)
        if all(other.name != each.name and other.description != each.description for each in tools):
            tools.append(other)
    draw.rng.shuffle(tools)
    return tools


def call_turn(draw: Draw, tool: Tool, *, with_result: bool = True) -> Turn:
    """Ask for a call of a tool, and answer from its result, or end with the call."""
    question, arguments = tool.asks(draw)
    if not with_result:
        return Turn(question, tool.call(arguments))
    result, answer = draw_result(draw)
    return Turn(question, answer, ((tool.call(arguments), result),))


def draw_result(draw: Draw) -> tuple[str, str]:
    """Draw what a tool gives back, and the answer that says so."""
    kind = draw.rng.random()
    if kind < 0.16:
        number = str(integer(draw)) if draw.chance(0.8) else f"{integer(draw) / 10}"
        return number, f"The answer is {number}."
    if kind < 0.40:
        short = text_value(draw).text
        return short, f"The answer is {short}."
    if kind < 0.64:
        sentence = draw.plain_phrase() if draw.chance(0.5) else draw.phrase().rstrip(".!?")
        ends = (".", ".", "!", f" {draw.number(3)}.", f": {text_value(draw).text}.")
        sentence = sentence[:1].upper() + sentence[1:] + draw.choice(ends)
        return sentence, sentence
    if kind < 0.88:
        values = {draw.noun(): _json_value(draw) for _ in range(draw.rng.choices((1, 2), (3, 1))[0])}
        parts = [f"the {name} is {_shown(value)}" for name, value in values.items()]
        sentence = joined(parts) + "."
        return json.dumps(values, ensure_ascii=False), sentence[:1].upper() + sentence[1:]
    if kind < 0.95:
        reason = draw.plain_phrase()
        reason = reason[:1].upper() + reason[1:] + draw.choice((".", "", "!"))
        return f"Error: {reason}", f"The tool failed: {reason}"
    items = [_json_value(draw) for _ in range(draw.rng.randint(2, 3))]
    return json.dumps(items, ensure_ascii=False), f"The answers are {joined([_shown(item) for item in items])}."


def _json_value(draw: Draw) -> Any:
    return integer(draw) if draw.chance(0.4) else text_value(draw).text


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def chain(draw: Draw) -> tuple[list[Tool], Turn]:
    """Draw a question that takes two calls: the second one needs the result of the first."""
    if draw.chance(0.3):
        return arithmetic_chain(draw)
    middle, last = draw.noun(), draw.noun()
    while last == middle:
        last = draw.noun()
    first = look_up(draw, noun=middle)
    second = look_up(draw, noun=last, thing=middle if draw.chance(0.8) else None)
    while second.name == first.name:
        second = look_up(draw, noun=last)
    value, found = text_value(draw), text_value(draw).text
    wordings = (
        "First find the {middle} of {value}, then the {last} of that {middle}.",
        "What is the {last} of the {middle} of {value}?",
        "Find the {middle} of {value} and then its {last}.",
        "Look up the {middle} of {value}, then tell me the {last} there.",
        "Get the {middle} for {value}. Then get the {last} of the result.",
        "I need the {last} of the {middle} of {value}.",
        "Tell me the {last} of the {middle} of {value}.",
    )
    question = draw.wording(wordings).format(middle=middle, last=last, value=value.shown(draw))
    between = json.dumps({middle: found}, ensure_ascii=False) if draw.chance(0.25) else found
    result, answer = draw_result(draw)
    (parameter,), (other,) = first.parameters, second.parameters
    steps = (
        (first.call({parameter.name: value.text}), between),
        (second.call({other.name: found}), result),
    )
    return [first, second], Turn(question, answer, steps)


def two_questions(draw: Draw) -> tuple[list[Tool], Turn]:
    """Draw a question that takes two calls which do not depend on each other."""
    tool, noun = _named_look_up(draw)
    other, another = (tool, noun) if draw.chance(0.4) else _named_look_up(draw)
    while other is not tool and (another == noun or other.name == tool.name):
        other, another = _named_look_up(draw)
    values, found = [text_value(draw) for _ in range(2)], [text_value(draw).text for _ in range(2)]
    shown = [value.shown(draw) for value in values]
    if other is tool:
        wordings = [
            "What is the {0} of {1} and {3}?",
            "Tell me the {0} of {1} and of {3}.",
            "Get the {0} for {1} and {3}.",
        ]
    else:
        wordings = ["What is the {0} of {1} and the {2} of {3}?", "Tell me the {0} of {1} and the {2} of {3}."]
    question = draw.choice(wordings).format(noun, shown[0], another, shown[1])
    steps = tuple(
        (each.call({each.parameters[0].name: value.text}), result)
        for each, value, result in zip((tool, other), values, found, strict=True)
    )
    tools = [tool] if other is tool else [tool, other]
    return tools, Turn(question, f"The answers are {found[0]} and {found[1]}.", steps)


def _named_look_up(draw: Draw) -> tuple[Tool, str]:
    noun = draw.noun()
    return look_up(draw, noun=noun), noun


WITHOUT_TOOLS = (
    *((small_talk, 5), (identity, 4), (fact, 5), (repeat, 3), (spell, 2), (count, 2), (add, 4), (give_name, 2)),
    (unknown, 8),
)


def no_call(draw: Draw, tools: Sequence[Tool]) -> Turn:
    """Ask something that none of the tools is for."""
    if draw.chance(0.5):  # what a tool could tell that is not there
        stranger = draw_tool(draw)
        while stranger.name in {tool.name for tool in tools} | OPERATION_NAMES or stranger.name[:1].isupper():
            stranger = draw_tool(draw)
        return Turn(stranger.asks(draw)[0], "I do not know.")
    skills, shares = zip(*WITHOUT_TOOLS, strict=True)
    skill = draw.rng.choices(skills, shares)[0]
    offers_sums = any(tool.name in OPERATION_NAMES for tool in tools)
    while skill is add and offers_sums:
        skill = draw.rng.choices(skills, shares)[0]
    turn: Turn = skill(draw, Memory())
    return turn


def draw_tool_conversation(draw: Draw) -> Conversation:
    """Draw one conversation with up to three tools and one to four questions."""
    kind = draw.rng.random()
    questions = draw.rng.choices((0, 1, 2, 3), (25, 30, 25, 20))[0]
    turns: list[Turn] = []
    if kind < 0.14:
        tools, turn = chain(draw)
        turns.append(turn)
        draw.rng.shuffle(tools)
    elif kind < 0.18:
        tools, turn = two_questions(draw)
        turns.append(turn)
        draw.rng.shuffle(tools)
    else:
        tools = tools_with(draw, draw_tool(draw))
        questions += 1
    for left in reversed(range(questions)):
        tool = draw.choice(tools)
        turns.append(
            no_call(draw, tools)
            if draw.chance(0.35)
            else call_turn(draw, tool, with_result=left > 0 or draw.chance(0.6))
        )
    system = (
        draw.choice((*SYSTEM_PLAIN, *SYSTEM_WITH_TOOLS, f"You help with the {draw.noun()}."))
        if draw.chance(0.3)
        else None
    )
    return Conversation(tuple(turns), system, tuple(tool.written for tool in tools))
