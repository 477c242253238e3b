"""Finds out what a chat template can render: each question is answered once, by rendering a small conversation."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.chat.messages import Turn


_PLACEHOLDER = "\U000f0000"  # a private-use character, as in `sanitizing`
_QUESTION: Turn = {"role": "user", "content": "probe-question"}
_SYSTEM: Turn = {"role": "system", "content": "probe-system"}
_RESULT = {"name": "probe_function", "tool_call_id": "probe1230"}  # a template may demand these keys of a result


def probe_turns(roles: Sequence[str]) -> list[Turn]:
    """Return a conversation of the given roles with the contents `probe-0`, `probe-1` and so on."""
    turns: list[Turn] = [{"role": role, "content": f"probe-{index}"} for index, role in enumerate(roles)]
    return [turn | _RESULT if turn["role"] == "tool" else turn for turn in turns]


class TemplateCapabilities:
    """What a template supports. `render` uses no tools and no generation prompt; it returns None for a refusal."""

    def __init__(self, render: Callable[[Sequence[Turn]], str | None]) -> None:
        self._render = render

    @cached_property
    def refuses_system(self) -> bool:
        """Whether a system message raises or is dropped."""
        return self._shows([_QUESTION], "probe-question") and not self._shows([_SYSTEM, _QUESTION], "probe-system")

    @cached_property
    def takes_system_alone(self) -> bool:
        """Whether a conversation may consist of one system message."""
        return self._shows_each(["system"])

    @cached_property
    def drops_system_behind_calls(self) -> bool:
        """Whether a system message is dropped after a tool call: Mistral's show it only if a question is last."""
        return self.shows_calls and not self._shows([_SYSTEM, *_probe_of_tools(1)], "probe-system")

    @cached_property
    def takes_system_anywhere(self) -> bool:
        """Whether system messages may come anywhere."""
        return self._shows_each(["system", "system", "user", "assistant", "system", "user"])

    @cached_property
    def demands_alternation(self) -> bool:
        """Whether users and answers have to alternate, and a user has to begin."""
        orders = (("user", "user", "assistant", "assistant", "user"), ("assistant", "user"))
        return not all(map(self._shows_each, orders))

    @cached_property
    def shows_names(self) -> bool:
        """Whether it shows the names of users."""
        return self._shows([_QUESTION | {"name": "probe-name"}], "probe-name")

    @cached_property
    def shows_calls(self) -> bool:
        """Whether it writes tool calls."""
        return self._shows(_probe_of_tools(1), "probe_function_0")

    @cached_property
    def drops_text_beside_calls(self) -> bool:
        """Whether a text beside calls raises or is dropped."""
        return self.shows_calls and not self._shows(_probe_of_tools(1, text="probe-text"), "probe-text")

    @cached_property
    def beginning_of_calls(self) -> str | None:
        """The text from an answer's start to the name of its first call; None if calls do not begin at the start."""
        question, answer, _ = _probe_of_tools(1, name=_PLACEHOLDER)
        calls = self._render([question, answer]) or ""
        text = self._render([question, {"role": "assistant", "content": "probe-text"}]) or ""
        before = text.partition("probe-text")[0].rstrip()
        beginning, found, _ = calls.partition(_PLACEHOLDER)
        return beginning[len(before) :] if found and beginning.startswith(before) else None

    @cached_property
    def shows_several_calls(self) -> bool:
        """Whether an answer may make several calls."""
        return self._shows(_probe_of_tools(2), "probe_function_0", "probe_function_1")

    @cached_property
    def refuses_other_ids(self) -> bool:
        """Whether calls need ids of nine letters or digits, as Mistral's models make them."""
        others = ("call_probe-", "c")  # some templates accept longer ids, but no shorter ones
        takes_nine = self._render(_probe_of_tools(1)) is not None
        return takes_nine and any(self._render(_probe_of_tools(1, other)) is None for other in others)

    @cached_property
    def shows_results(self) -> bool:
        """Whether it shows the results of tools."""
        return self._shows(_probe_of_tools(1), "probe-result-0")

    @cached_property
    def shows_results_of_written_calls(self) -> bool:
        """Whether it also shows the result of a call that the previous answer has in its content."""
        return self._shows_each(["user", "assistant", "tool", "assistant", "user"])

    def shows_role(self, role: str) -> bool:
        """Return whether it shows messages of a role, at least in one place."""
        return any(self._shows_each([*before, role]) for before in ((), ("user",), ("user", "assistant")))

    def drops_role(self, role: str) -> bool:
        """Return whether it silently drops messages of a role."""
        rendered = self._render(probe_turns(["user", role, "user"]))
        return rendered is not None and "probe-0" in rendered and "probe-1" not in rendered

    def _shows_each(self, roles: Sequence[str]) -> bool:
        turns = probe_turns(roles)
        return self._shows(turns, *(turn["content"] for turn in turns))

    def _shows(self, turns: Sequence[Turn], *texts: str) -> bool:
        """Return whether the template renders a conversation, and the texts are in it."""
        rendered = self._render(turns)
        return rendered is not None and all(text in rendered for text in texts)


def _probe_of_tools(
    calls: int, identifier: str = "probe123", text: str = "", name: str = "probe_function_"
) -> list[Turn]:
    names = {f"{identifier}{index}": f"{name}{index}" for index in range(calls)}
    functions = [
        {"type": "function", "id": each, "function": {"name": name, "arguments": {"probe": 1}}}
        for each, name in names.items()
    ]
    results = [
        {"role": "tool", "content": f"probe-result-{index}", "name": name, "tool_call_id": each}
        for index, (each, name) in enumerate(names.items())
    ]
    return [_QUESTION, {"role": "assistant", "content": text, "tool_calls": functions}, *results]
