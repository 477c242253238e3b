"""Texts in front of calls, where a template writes the calls of an answer and leaves out what is said beside them.

Mistral's do. Their calls and results are no turns, so the calls cannot become text like any other either: the results
would have to come from the user then. So the template writes the calls, each with a mark in it, and the text is put in
front of them afterwards, where the model wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from langchain_petals.chat.templates.adaptation import Turn, WriteCalls


class TextsBeforeCalls:
    """The texts of one conversation, on their way around the template.

    Args:
        write: Gives the text of an answer's calls, after its content.
        beginning: How the template begins a call, up to its name.
        marks: Characters that occur nowhere in the conversation.
    """

    def __init__(self, write: WriteCalls, beginning: str, marks: Iterable[str]) -> None:
        self._write, self._beginning, self._marks = write, beginning, iter(marks)
        self._texts: dict[str, str] = {}

    def take(self, turns: Iterable[Turn]) -> list[Turn]:
        """Return the conversation without texts beside calls; a mark is in front of the first call's name instead."""
        return [self._taken(turn) if turn.get("tool_calls") and turn["content"].strip() else turn for turn in turns]

    def _taken(self, turn: Turn) -> Turn:
        mark = next(self._marks)
        self._texts[mark] = turn["content"]
        first, *others = turn["tool_calls"]
        function = first.get("function", first)
        marked = function | {"name": mark + function["name"]}
        first = first | {"function": marked} if "function" in first else marked
        return turn | {"content": "", "tool_calls": [first, *others]}

    def put_back(self, rendered: str) -> str:
        """Return the rendered conversation with the texts in it."""
        for mark, text in self._texts.items():
            call = [{"name": mark, "args": {}}]
            between = self._write(call, text).removeprefix(text).removesuffix(self._write(call, ""))
            rendered = rendered.replace(self._beginning + mark, text + between + self._beginning.lstrip())
        return rendered
