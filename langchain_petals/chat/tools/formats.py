r"""How models write tool calls: the wire formats, and what decoding must keep to.

A format knows how the model was trained to write a call. From the tools it makes a constraint for the engine, so that
what is written parses and fits the tool's schema; it parses answers, and renders calls as they were written, so that a
conversation goes on from tokens that the servers have seen already.

    "hermes"     <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>, once for each call (Hermes, Qwen)
    "llama-3.1"  {"name": "f", "parameters": {"x": 1}}, one call that is the whole answer, or comes behind a text and
                 `<|python_tag|>`; "llama-3.1-python-tag" where the tag is always there
    "mistral"    [TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}}, ...]

A call that could be written in two ways is read in both, but rendered in one: "llama-3.1" takes a tag that no text
precedes, and leaves it out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from langchain_petals.chat.tools.parser import Delimiters, ToolCallParser
from langchain_petals.chat.tools.schema import ArgumentCheck, arguments_rule
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import ITEM_SEPARATOR, Constraint, Trigger, lark_string, validated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.messages import ToolCall

    from langchain_petals.chat.tools.schema import Tool

Mode = Literal["auto", "none", "any"]
"""Whether the model decides by itself to call tools, may not, or must."""


class ToolFormat(Protocol):
    """One way to write tool calls."""

    @property
    def name(self) -> str:
        """What users call it."""

    def constraint(
        self, tools: Sequence[Tool], mode: Mode = "auto", *, parallel: bool = True, otherwise: str | None = None
    ) -> Constraint:
        """Return what an answer has to keep to.

        Args:
            tools: What may be called.
            mode: Whether something may, must or must not be called.
            parallel: Whether one answer may hold several calls, where the format can.
            otherwise: Grammar of an answer that calls nothing, where something may be called; None for free text. It
                must not begin as a call does, since a lexer cannot look ahead: take the `marked` format.

        Raises:
            InvalidRequestError: A tool's schema cannot be expressed as a grammar; names the tool.
        """

    @property
    def markers(self) -> tuple[str, ...]:
        """What begins a call, wherever it comes."""

    @property
    def instructions(self) -> str:
        """How to write a call, for models whose template does not say."""

    @property
    def marked(self) -> ToolFormat:
        """The format for answers that are calls, with a marker before each or all, or an object that is none."""

    def parser(self, tools: Sequence[Tool]) -> ToolCallParser:
        """Return what takes one answer apart.

        Args:
            tools: What may be called.
        """

    def render(self, calls: Iterable[ToolCall], content: str = "") -> str:
        """Return an answer's text as the model writes it.

        Args:
            calls: Its tool calls.
            content: Its text.
        """

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Return what tells a model about tools when its template does not."""


@dataclass(frozen=True)
class JsonFormat:
    """A format whose calls are JSON objects between markers.

    The Lark fragments may use the rules `open` and `close` (the markers), `object` (a call's JSON) and `calls`.

    Attributes:
        name: What users call it.
        delimiters: The texts that separate calls from other text.
        calls: Fragment for what comes after the start marker if there may be several calls.
        one_call: Fragment for what comes after the start marker if there may be one.
        forced: Fragment for an answer that is several calls.
        forced_once: Fragment for an answer that is one call.
        goes_on: Whether text and further calls may come after the end marker.
        wrapping: What is put before, between and after the objects of an answer.
    """

    name: str
    delimiters: Delimiters
    calls: str
    one_call: str
    forced: str
    forced_once: str
    goes_on: bool
    wrapping: tuple[str, str, str]

    def constraint(
        self, tools: Sequence[Tool], mode: Mode = "auto", *, parallel: bool = True, otherwise: str | None = None
    ) -> Constraint:
        """Return what an answer has to keep to; see `ToolFormat.constraint`."""
        delimiters = self.delimiters
        if mode == "none":
            return Constraint(triggers=self._forbidden(tools))
        markers = {"open": delimiters.starts[0]}
        if len(delimiters.end) > 1:
            markers["close"] = delimiters.end
        rules = self._rules(tools)
        after = self.calls if parallel else self.one_call
        if mode == "any" or otherwise is not None:
            start = self.forced if parallel else self.forced_once
            if mode != "any" and otherwise is not None:
                start, rules = f"{start} | otherwise", f"{rules}\n{otherwise.replace('start:', 'otherwise:', 1)}"
            return Constraint(f"start: {start}\ncalls: {after}\n{rules}", markers=tuple(markers.items()))
        triggers = tuple(Trigger(start, f"start: {after}\n{rules}") for start in delimiters.starts)
        for tool in tools if delimiters.bare else ():
            rest = f"start: {lark_string(self._after_name)} arguments {lark_string('}')}\narguments: {_lark_rule(tool)}"
            triggers += tuple(Trigger(begin, rest, at_start=True) for begin in self._bare([tool]))
        return Constraint(triggers=triggers, repeat=parallel and self.goes_on, markers=tuple(markers.items()))

    def _forbidden(self, tools: Sequence[Tool]) -> tuple[Trigger, ...]:
        """Return what must not be written where nothing may be called; an object that names no tool is as good as any.

        Args:
            tools: What might be called.
        """
        starts = [Trigger(start, None) for start in self.delimiters.starts]
        return (*starts, *(Trigger(marker, None, at_start=True) for marker in self._bare(tools)))

    def _bare(self, tools: Sequence[Tool]) -> list[str]:
        """Return how calls of these tools may begin without a marker; other JSON is text."""
        names = [_json(tool["function"]["name"]) for tool in tools]
        return [begin + name for begin in self.delimiters.bare for name in names]

    @property
    def _after_name(self) -> str:
        return f', "{self.delimiters.arguments}": '

    def _rules(self, tools: Sequence[Tool]) -> str:
        arguments, objects = [], []
        for number, tool in enumerate(tools):
            begin = f'{{"name": {_json(tool["function"]["name"])}{self._after_name}'
            arguments.append(f"arguments_{number}: {_lark_rule(tool)}")
            objects.append(f'{lark_string(begin)} arguments_{number} "}}"')
        return "\n".join(["object: " + " | ".join(objects), *arguments])

    @property
    def markers(self) -> tuple[str, ...]:
        """What begins a call; see `ToolFormat.markers`."""
        return self.delimiters.starts

    @property
    def instructions(self) -> str:
        """How to write a call; see `ToolFormat.instructions`."""
        before, _, after = self.wrapping
        call = f'{before}{{"name": <name>, "{self.delimiters.arguments}": <arguments>}}{after}'
        return (
            f"To call a function, answer with\n{call}\nwhere <name> is the name of the function and <arguments> is a "
            "JSON object that gives its arguments by name."
        )

    @property
    def marked(self) -> JsonFormat:
        """The format for answers that are calls or an object; see `ToolFormat.marked`."""
        delimiters = replace(self.delimiters, bare=(), leading=True)
        if not self.delimiters.bare:
            return replace(self, delimiters=delimiters)
        marker, (_, between, after) = self.delimiters.starts[0], self.wrapping
        return replace(
            self,
            delimiters=delimiters,
            forced="open calls",
            forced_once="open calls",
            wrapping=(marker, between, after),
        )

    def parser(self, tools: Sequence[Tool]) -> ToolCallParser:
        """Return what takes one answer apart; see `ToolFormat.parser`."""
        return ToolCallParser(self.delimiters, self._bare(tools), check=ArgumentCheck(tools).problem)

    def render(self, calls: Iterable[ToolCall], content: str = "") -> str:
        """Return an answer's text; see `ToolFormat.render`."""
        key = self.delimiters.arguments
        objects = [f'{{"name": {_json(call["name"])}, "{key}": {_json(call["args"])}}}' for call in calls]
        if not objects:
            return content
        before, between, after = self.wrapping
        if content:  # without a marker it would be text: only a whole answer can do without
            before = self.delimiters.before + (self.delimiters.starts[0] if self.delimiters.bare else before)
        return content + before + between.join(objects) + after

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Return what tells a model about tools; see `ToolFormat.system_prompt`."""
        described = "\n".join(_json(tool) for tool in tools)
        return (
            "# Tools\n\nYou may call functions to assist with the user's request. Their signatures are:\n"
            f"<tools>\n{described}\n</tools>\n\n{self.instructions}"
        )


def chosen_tools(choice: Any, tools: Sequence[Tool]) -> tuple[Mode, list[Tool]]:
    """Return what a `tool_choice` of LangChain's, OpenAI's or Anthropic's kind means.

    Args:
        choice: None or "auto"; "none" or False; "any", "required" or True; a tool's name;
            `{"type": "function", "function": {"name": ...}}`, `{"type": "tool", "name": ...}`, `{"type": "any"}`, ...
        tools: What is bound.

    Returns:
        The mode, and the tools that may be called.

    Raises:
        InvalidRequestError: It names a tool that is not bound, or is nothing of these.
    """
    if isinstance(choice, dict):
        described = choice.get("function", choice)
        if not isinstance(described, dict) or not (described.get("name") or choice.get("type")):
            msg = f'tool_choice={choice!r} names no tool; write {{"type": "function", "function": {{"name": ...}}}}'
            raise InvalidRequestError(msg)
        if described.get("name") is not None:  # a tool, even one that is called "any"
            return "any", _named(described["name"], tools)
        choice = choice.get("type")
    if choice is None or choice == "auto":
        return "auto", list(tools)
    if choice is False or choice == "none":
        return "none", []
    if choice is True or choice in ("any", "required"):
        if tools:
            return "any", list(tools)
        msg = f"tool_choice={choice!r} needs tools; bind at least one"
        raise InvalidRequestError(msg)
    return "any", _named(choice, tools)


def is_for_one_call(choice: Any) -> bool:
    """Return whether a `tool_choice` asks for one call: of a certain tool, or since Anthropic's kind says so."""
    if isinstance(choice, dict):
        return bool(choice.get("disable_parallel_tool_use", "name" in choice.get("function", choice)))
    return isinstance(choice, str) and choice not in ("auto", "none", "any", "required")


def _named(name: Any, tools: Sequence[Tool]) -> list[Tool]:
    matching = [tool for tool in tools if tool["function"]["name"] == name]
    if not matching:
        names = ", ".join(repr(tool["function"]["name"]) for tool in tools) or "none"
        msg = f'tool_choice={name!r} names no bound tool (bound: {names}); or use "auto", "none" or "any"'
        raise InvalidRequestError(msg)
    return matching


def _lark_rule(tool: Tool) -> str:
    """Return what stands for a tool's arguments in a Lark rule."""
    rule = arguments_rule(tool["function"]).rule
    validated(f"start: {rule}", f"the schema of tool {tool['function']['name']!r}")
    return rule


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


HERMES = JsonFormat(
    name="hermes",
    delimiters=Delimiters(("<tool_call>",), "</tool_call>", separators="", arguments="arguments", before="\n"),
    calls=r'"\n" object "\n" close',
    one_call=r'"\n" object "\n" close',
    forced=r'open calls ("\n" open calls)*',
    forced_once="open calls",
    goes_on=True,
    wrapping=("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
)

LLAMA = JsonFormat(
    name="llama-3.1",
    delimiters=Delimiters(
        ("<|python_tag|>",),
        "",
        separators=";",
        arguments="parameters",
        bare=('{"name": ', '{"name":', '{"type": "function", "name": '),
    ),
    calls="object",
    one_call="object",
    forced="calls",
    forced_once="calls",
    goes_on=False,
    wrapping=("", "; ", ""),
)

LLAMA_PYTHON_TAG = replace(
    LLAMA,
    name="llama-3.1-python-tag",
    forced="open calls",
    forced_once="open calls",
    wrapping=("<|python_tag|>", "; ", ""),
)

MISTRAL = JsonFormat(
    name="mistral",
    delimiters=Delimiters(("[TOOL_CALLS]",), "]", separators="[,", arguments="arguments"),
    calls=f'" [" object ({lark_string(ITEM_SEPARATOR)} object)* "]"',
    one_call='" [" object "]"',
    forced="open calls",
    forced_once="open calls",
    goes_on=False,
    wrapping=("[TOOL_CALLS] [", ITEM_SEPARATOR, "]"),
)

FORMATS: dict[str, ToolFormat] = {each.name: each for each in (HERMES, LLAMA, LLAMA_PYTHON_TAG, MISTRAL)}
"""The formats by name."""


def find_format(name: str | None, template: str | None) -> ToolFormat:
    """Return the format of a model.

    Args:
        name: The one to use; None to find out.
        template: The source of the chat template that the model's tools are rendered with, where a format leaves its
            marks; None if there is none.

    Returns:
        The format that was named, or the one of the template; Hermes' where nothing points to another.

    Raises:
        InvalidRequestError: There is no format of this name.
    """
    if name is not None:
        if name in FORMATS:
            return FORMATS[name]
        msg = f"there is no tool format {name!r}; there are {', '.join(sorted(FORMATS))}"
        raise InvalidRequestError(msg)
    source = template or ""
    if "[TOOL_CALLS]" in source:
        return MISTRAL
    if "<tool_call>" not in source and ("<|python_tag|>" in source or '"parameters": ' in source):
        return LLAMA
    return HERMES
