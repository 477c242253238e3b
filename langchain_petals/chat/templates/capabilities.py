"""What a chat template knows, found out by rendering small conversations with it: each question once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.chat.templates.adaptation import Turn


_MARK = "\U000f0000"  # for private use, as what marks texts in a prompt; a template that changes it changes these
_RESULT = {"name": "probe_function", "tool_call_id": "probe1230"}  # what a template may demand of any result


def probe_turns(roles: Sequence[str]) -> list[Turn]:
    """Return a conversation of certain roles, who say `probe-0`, `probe-1` and so on."""
    turns: list[Turn] = [{"role": role, "content": f"probe-{index}"} for index, role in enumerate(roles)]
    return [turn | _RESULT if turn["role"] == "tool" else turn for turn in turns]


class TemplateCapabilities:
    """What a template can show.

    Args:
        render: Renders a conversation with it, without tools and nothing behind; None if the template refuses it.
    """

    def __init__(self, render: Callable[[Sequence[Turn]], str | None]) -> None:
        self._render = render

    @cached_property
    def refuses_system(self) -> bool:
        """Whether a system message raises or vanishes."""
        question = {"role": "user", "content": "probe-question"}
        system = {"role": "system", "content": "probe-system"}
        return self._shows([question], "probe-question") and not self._shows([system, question], "probe-system")

    @cached_property
    def takes_system_alone(self) -> bool:
        """Whether a system message may be all that there is."""
        return self._shows_each(["system"])

    @cached_property
    def drops_system_behind_calls(self) -> bool:
        """Whether a system message is gone as soon as a tool was called, as Mistral's show it with a last question."""
        system = {"role": "system", "content": "probe-system"}
        return self.shows_calls and not self._shows([system, *_probe_of_tools(1)], "probe-system")

    @cached_property
    def takes_system_anywhere(self) -> bool:
        """Whether system messages may come further on."""
        return self._shows_each(["system", "system", "user", "assistant", "system", "user"])

    @cached_property
    def demands_alternation(self) -> bool:
        """Whether users and answers have to take turns, and a user has to begin."""
        orders = (("user", "user", "assistant", "assistant", "user"), ("assistant", "user"))
        return not all(map(self._shows_each, orders))

    @cached_property
    def shows_names(self) -> bool:
        """Whether it tells users apart."""
        return self._shows([{"role": "user", "content": "probe-question", "name": "probe-name"}], "probe-name")

    @cached_property
    def shows_calls(self) -> bool:
        """Whether it writes tool calls."""
        return self._shows(_probe_of_tools(1), "probe_function_0")

    @cached_property
    def drops_text_beside_calls(self) -> bool:
        """Whether an answer that makes calls can say nothing else: a text raises or vanishes."""
        return self.shows_calls and not self._shows(_probe_of_tools(1, text="probe-text"), "probe-text")

    @cached_property
    def beginning_of_calls(self) -> str | None:
        """How the calls of an answer begin, up to the first one's name; None if that is not where a text would be."""
        question, answer, _ = _probe_of_tools(1, name=_MARK)
        calls = self._render([question, answer]) or ""
        text = self._render([question, {"role": "assistant", "content": "probe-text"}]) or ""
        before = text.partition("probe-text")[0].rstrip()
        beginning, mark, _ = calls.partition(_MARK)
        return beginning[len(before) :] if mark and beginning.startswith(before) else None

    @cached_property
    def shows_several_calls(self) -> bool:
        """Whether an answer may make several calls."""
        return self._shows(_probe_of_tools(2), "probe_function_0", "probe_function_1")

    @cached_property
    def refuses_other_ids(self) -> bool:
        """Whether calls need ids of nine letters or digits, as Mistral's models make them."""
        others = ("call_probe-", "c")  # some take longer ones, and no shorter ones
        takes_nine = self._render(_probe_of_tools(1)) is not None
        return takes_nine and any(self._render(_probe_of_tools(1, other)) is None for other in others)

    @cached_property
    def shows_results(self) -> bool:
        """Whether it shows what a tool gives back."""
        return self._shows(_probe_of_tools(1), "probe-result-0")

    @cached_property
    def shows_results_of_written_calls(self) -> bool:
        """Whether it also shows what a tool gives back where the call is in the content of the answer before."""
        return self._shows_each(["user", "assistant", "tool", "assistant", "user"])

    def shows_role(self, role: str) -> bool:
        """Return whether somebody in a certain role may speak anywhere."""
        return any(self._shows_each([*before, role]) for before in ((), ("user",), ("user", "assistant")))

    def drops_role(self, role: str) -> bool:
        """Return whether it leaves out what somebody says in a certain role."""
        rendered = self._render(probe_turns(["user", role, "user"]))
        return rendered is not None and "probe-0" in rendered and "probe-1" not in rendered

    def _shows_each(self, roles: Sequence[str]) -> bool:
        turns = probe_turns(roles)
        return self._shows(turns, *(turn["content"] for turn in turns))

    def _shows(self, turns: Sequence[Turn], *texts: str) -> bool:
        """Return whether the template renders a conversation, with certain texts in it."""
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
    question = {"role": "user", "content": "probe-question"}
    return [question, {"role": "assistant", "content": text, "tool_calls": functions}, *results]
