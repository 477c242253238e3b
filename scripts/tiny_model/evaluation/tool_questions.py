"""Questions of the evaluation about tools and JSON objects: held-back cases, a row of the model card for each skill.

Each case is judged in one place: at the call, or at the answer that follows a result. All before that is as it should
be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_model.data.styles import TURN_END, Conversation, Turn, written
from tiny_model.data.tool_use.arithmetic import of_operation
from tiny_model.data.tool_use.calls import call_turn, chain, no_call, tools_with
from tiny_model.data.tool_use.kinds import (
    draw_tool,
    look_up,
    of_list,
    of_name_and_text,
    of_named_values,
    of_nothing,
    of_number,
    of_record,
    of_text_and_choice,
    of_text_and_number,
)
from tiny_model.data.tool_use.objects import for_schema, with_keys
from tiny_model.data.words import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiny_model.data.tool_use.tools import Tool
    from tiny_model.data.words import Draw


@dataclass(frozen=True)
class Case:
    """One question.

    Attributes:
        prompt: what the model is given.
        answer: what it should go on with.
    """

    prompt: str
    answer: str

    @property
    def forced(self) -> Case:
        """The same case, with the beginning of the call up to the tool's name given, as a grammar would force it."""
        begin, mark, rest = self.answer.partition('", "arguments": ')
        return Case(self.prompt + begin, mark + rest)

    @property
    def is_call(self) -> bool:
        """Whether the answer is a call of a tool."""
        return self.answer.startswith("<tool_call>")


def case_of(conversation: Conversation, answer: int = 0) -> Case:
    """Return the case of a conversation's answer, the first one or another."""
    segments = written(conversation, "chatml")
    at = [index for index, (_, learned) in enumerate(segments) if learned][answer]
    return Case("".join(text for text, _ in segments[:at]), segments[at][0].removesuffix(TURN_END))


def _of(tools: Sequence[Tool], turn: Turn) -> Conversation:
    return Conversation((turn,), tools=tuple(tool.written for tool in tools))


def _call_of(kind: Callable[[Draw], Tool], others: int = 0) -> Callable[[Draw], Case]:
    def make(draw: Draw) -> Case:
        tool = kind(draw)
        return case_of(_of(tools_with(draw, tool, others), call_turn(draw, tool)))

    return make


def _drawn_in(script: str, make: Callable[[], str]) -> str:
    """Draw texts until one has characters of a script."""
    _, ranges = SCRIPTS[script]
    while True:
        text = make()
        if any(first <= ord(character) <= last for character in text for first, last in ranges):
            return text


def _call_in(script: str) -> Callable[[Draw], Case]:
    """Return a generator of calls whose values, and half of the time names, are in a script."""

    def make(draw: Draw) -> Case:
        noun, thing = (
            _drawn_in(script, draw.script_word).lower() if draw.chance(0.5) else draw.noun() for _ in range(2)
        )
        tool = look_up(draw, noun=noun, thing=thing)
        asked: list[tuple[str, dict[str, str]]] = []

        def value() -> str:
            asked.append(tool.asks(draw))
            return asked[-1][1][thing]

        _drawn_in(script, value)
        question, arguments = asked[-1]
        return case_of(_of([tool], Turn(question, tool.call(arguments))))

    return make


def _answer(draw: Draw) -> Case:
    tool = draw_tool(draw)
    return case_of(_of(tools_with(draw, tool), call_turn(draw, tool)), 1)


def _chained(step: int) -> Callable[[Draw], Case]:
    return lambda draw: case_of(_of(*chain(draw)), step)


def _no_call(draw: Draw) -> Case:
    tools = tools_with(draw, draw_tool(draw))
    return case_of(_of(tools, no_call(draw, tools)))


CALLS: dict[str, Callable[[Draw], Case]] = {
    "one text": _call_of(look_up),
    "one integer": _call_of(of_number),
    "no arguments": _call_of(of_nothing),
    "a name and a text": _call_of(of_name_and_text),
    "a text and an integer": _call_of(of_text_and_number),
    "one to three values by name": _call_of(of_named_values),
    "a text and a choice": _call_of(of_text_and_choice),
    "a list": _call_of(of_list),
    "arithmetic": _call_of(of_operation),
    "a form": _call_of(of_record),
}
"""Calls of the only tool."""

CALLS_IN_SCRIPTS: dict[str, Callable[[Draw], Case]] = {
    f"in {script}": _call_in(script) for script in ("Chinese", "Japanese", "Cyrillic", "Greek", "Arabic", "emoji")
}
"""Calls of the only tool, with values in other scripts, and names too in half of the cases."""

CALLS_IN_NEW_WORDS: dict[str, Callable[[Draw], Case]] = {"any, in a held-back wording": _call_of(draw_tool)}
"""Calls of the only tool, in wordings that training does not have."""

ANSWERS: dict[str, Callable[[Draw], Case]] = {
    "which of two tools to call, and how": _call_of(draw_tool, 1),
    "which of three tools to call, and how": _call_of(draw_tool, 2),
    "no tool fits": _no_call,
    "answer from a result": _answer,
    "two calls, the first": _chained(0),
    "two calls, the second, with the result of the first": _chained(1),
    "two calls, the answer": _chained(2),
    "JSON for a schema": lambda draw: case_of(for_schema(draw)),
    "JSON with the keys of the question": lambda draw: case_of(with_keys(draw)),
}
"""Other decisions and answers."""
