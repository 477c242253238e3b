r"""The formats in which models write tool calls.

A format describes how a model was trained to write calls. It makes a constraint for the engine, so that calls can be
parsed and fit the schemas of their tools. It parses answers. And it renders calls exactly as they were written, so that
the servers can reuse the tokens of a conversation.

    "hermes"     <tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>, once for each call (Hermes, Qwen)
    "llama-3.1"  {"name": "f", "parameters": {"x": 1}}, one call that is the whole answer, or comes after text and
                 `<|python_tag|>`; in "llama-3.1-python-tag", always after the tag
    "mistral"    [TOOL_CALLS] [{"name": "f", "arguments": {"x": 1}}, ...]

Some formats parse two spellings of a call, but render only one of them: "llama-3.1" parses a tag at the beginning of
an answer, and renders none there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from langchain_petals.chat.tools.parser import Delimiters, ToolCallParser
from langchain_petals.chat.tools.schema import Tool, argument_problem, arguments_rule
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import ITEM_SEPARATOR, Constraint, Trigger, lark_string

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_core.messages import ToolCall

Mode = Literal["auto", "none", "any"]
"""Whether the model may ("auto"), must not ("none") or must ("any") call tools."""


@dataclass(frozen=True)
class ToolFormat:
    """A format whose calls are JSON objects between markers.

    The Lark expressions may use the rules `open` and `close` (the markers), `object` (a call's JSON) and `calls`.

    Attributes:
        name: Name of the format, as users give it.
        delimiters: The texts that separate calls from other text.
        calls: Lark expression of the text after a start marker, with several calls.
        one_call: Lark expression of the text after a start marker, with one call.
        wrapping: Texts before, between and after the objects of an answer.
        goes_on: Whether text, or a call on the next line, may follow the end marker.
    """

    name: str
    delimiters: Delimiters
    calls: str
    one_call: str
    wrapping: tuple[str, str, str]
    goes_on: bool = False

    def constraint(
        self, tools: Sequence[Tool], mode: Mode = "auto", *, parallel: bool = True, otherwise: str | None = None
    ) -> Constraint:
        """Return the constraint on an answer.

        Args:
            tools: The tools that may be called.
            mode: Whether the model may, must or must not call tools.
            parallel: Whether an answer may contain several calls, if the format can.
            otherwise: Grammar of an answer without calls; None for free text. No call may begin like such an answer,
                since the lexer cannot look ahead: use the `marked` format.

        Raises:
            InvalidRequestError: No grammar can enforce a tool's schema; names the tool.
        """
        delimiters = self.delimiters
        if mode == "none":  # objects that call none of the tools are allowed
            forbidden = [Trigger(start, None) for start in delimiters.starts]
            forbidden += [Trigger(begin, None, at_start=True) for begin in self._bare(tools)]
            return Constraint(triggers=tuple(forbidden))
        markers = [("open", delimiters.starts[0])]
        if len(delimiters.end) > 1:
            markers.append(("close", delimiters.end))
        arguments = [arguments_rule(tool["function"]).rule for tool in tools]
        begins = [lark_string(self._begin(_json(tool["function"]["name"]))) for tool in tools]
        objects = " | ".join(f'{begin} arguments_{number} "}}"' for number, begin in enumerate(begins))
        rules = [f"object: {objects}", *(f"arguments_{number}: {rule}" for number, rule in enumerate(arguments))]
        after = self.calls if parallel else self.one_call
        if mode == "any" or otherwise is not None:
            start = "open calls" if self.wrapping[0] else "calls"
            if parallel and self.goes_on:
                start += ' ("\\n" open calls)*'
            if mode != "any" and otherwise is not None:
                start += " | otherwise"
                rules.append(otherwise.replace("start:", "otherwise:", 1))
            grammar = "\n".join([f"start: {start}", f"calls: {after}", *rules])
            return Constraint(grammar, markers=tuple(markers))
        grammar = "\n".join([f"start: {after}", *rules])
        triggers = [Trigger(start, grammar) for start in delimiters.starts]
        for tool, rule in zip(tools, arguments, strict=True):
            rest = f"start: {lark_string(self._after_name)} arguments {lark_string('}')}\narguments: {rule}"
            triggers += [Trigger(begin, rest, at_start=True) for begin in self._bare([tool])]
        return Constraint(triggers=tuple(triggers), repeat=parallel and self.goes_on, markers=tuple(markers))

    def _bare(self, tools: Sequence[Tool]) -> list[str]:
        """Return how calls of these tools begin if they have no marker; other JSON is text."""
        names = [_json(tool["function"]["name"]) for tool in tools]
        return [begin + name for begin in self.delimiters.bare for name in names]

    @property
    def _after_name(self) -> str:
        return f', "{self.delimiters.arguments}": '

    def _begin(self, name: str) -> str:
        """Return a call's JSON text before its arguments."""
        return f'{{"name": {name}{self._after_name}'

    @property
    def instructions(self) -> str:
        """Instructions for models whose template does not tell them how to write a call."""
        before, _, after = self.wrapping
        call = f"{before}{self._begin('<name>')}<arguments>}}{after}"
        return (
            f"To call a function, answer with\n{call}\nwhere <name> is the name of the function and <arguments> is a "
            "JSON object that gives its arguments by name."
        )

    @property
    def marked(self) -> ToolFormat:
        """The same format, but calls always have a start marker, so that an object without one is no call."""
        before, between, after = self.wrapping
        delimiters = replace(self.delimiters, bare=(), leading=True)
        return replace(self, delimiters=delimiters, wrapping=(before or delimiters.starts[0], between, after))

    def parser(self, tools: Sequence[Tool]) -> ToolCallParser:
        """Return a parser of one answer, in which these tools may be called."""
        return ToolCallParser(self.delimiters, self._bare(tools), check=partial(argument_problem, tools))

    def render(self, calls: Iterable[ToolCall], content: str = "") -> str:
        """Return the text of an answer with these calls and this content, as the model writes it."""
        objects = [f"{self._begin(_json(call['name']))}{_json(call['args'])}}}" for call in calls]
        if not objects:
            return content
        before, between, after = self.wrapping
        if content:  # after text, an object without a marker would be read as text
            before = self.delimiters.before + (self.delimiters.starts[0] if self.delimiters.bare else before)
        return content + before + between.join(objects) + after

    def system_prompt(self, tools: Sequence[Tool]) -> str:
        """Return a system prompt about tools, for models whose template does not render them."""
        described = "\n".join(_json(tool) for tool in tools)
        return (
            "# Tools\n\nYou may call functions to assist with the user's request. Their signatures are:\n"
            f"<tools>\n{described}\n</tools>\n\n{self.instructions}"
        )


def chosen_tools(choice: Any, tools: Sequence[Tool]) -> tuple[Mode, list[Tool]]:
    """Return the mode and the allowed tools of a `tool_choice` in the format of LangChain, OpenAI or Anthropic.

    Args:
        choice: None or "auto"; "none" or False; "any", "required" or True; a tool's name;
            `{"type": "function", "function": {"name": ...}}`, `{"type": "tool", "name": ...}`, `{"type": "any"}`, ...
        tools: The bound tools.

    Raises:
        InvalidRequestError: The choice names a tool that is not bound, or has none of these forms.
    """
    if isinstance(choice, dict):
        described = choice.get("function", choice)
        if not isinstance(described, dict) or not (described.get("name") or choice.get("type")):
            msg = f'tool_choice={choice!r} names no tool; write {{"type": "function", "function": {{"name": ...}}}}'
            raise InvalidRequestError(msg)
        if described.get("name") is not None:  # a tool, even if its name is "any"
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
    """Whether a `tool_choice` asks for one call: it names a tool, or sets Anthropic's `disable_parallel_tool_use`."""
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


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


HERMES = ToolFormat(
    name="hermes",
    delimiters=Delimiters(("<tool_call>",), "</tool_call>", separators="", arguments="arguments", before="\n"),
    calls=r'"\n" object "\n" close',
    one_call=r'"\n" object "\n" close',
    wrapping=("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
    goes_on=True,
)

LLAMA = ToolFormat(
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
    wrapping=("", "; ", ""),
)

LLAMA_PYTHON_TAG = replace(LLAMA, name="llama-3.1-python-tag", wrapping=("<|python_tag|>", "; ", ""))

MISTRAL = ToolFormat(
    name="mistral",
    delimiters=Delimiters(("[TOOL_CALLS]",), "]", separators="[,", arguments="arguments"),
    calls=f'" [" object ({lark_string(ITEM_SEPARATOR)} object)* "]"',
    one_call='" [" object "]"',
    wrapping=("[TOOL_CALLS] [", ITEM_SEPARATOR, "]"),
)

FORMATS: dict[str, ToolFormat] = {each.name: each for each in (HERMES, LLAMA, LLAMA_PYTHON_TAG, MISTRAL)}
"""The formats by name."""


def find_format(name: str | None, template: str | None) -> ToolFormat:
    """Return the tool format of a name. Without a name, detect it from the template's markers; the default is Hermes.

    Args:
        name: Name of the format; None to detect it.
        template: Source of the chat template that renders the model's tools; None if there is none.

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
