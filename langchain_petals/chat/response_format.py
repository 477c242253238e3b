"""The format of an answer: free text, tool calls, JSON that fits a schema, or a choice of these."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.reasoning import END, START
from langchain_petals.chat.templates import with_system_section
from langchain_petals.chat.tools import arguments_rule, chosen_tools, is_for_one_call, openai_tools
from langchain_petals.errors import InvalidRequestError
from langchain_petals.grammars import Constraint, json_grammar, schema_check, schema_rule
from langchain_petals.schemas import ObjectSchema, closed_schema_of, object_schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_petals.chat.messages import Turn
    from langchain_petals.chat.tools import Mode, Tool, ToolCallParser, ToolFormat


PARSED = "parsed"
"""Key of a `response_format` whose answer will be parsed to an object; the parser raises if it breaks the schema."""


@dataclass(frozen=True)
class ResponseFormat:
    """The format of one call's answer.

    Attributes:
        tools: The tools that the prompt describes, in OpenAI's format.
        allowed: The tools that may be called; one, if `tool_choice` names it.
        mode: Whether the model may, must not or must call tools.
        parallel: Whether one answer may contain several calls.
        schema: JSON schema of an answer without tool calls; None for free text.
        describes_schema: Whether the prompt describes the schema.
        strict: Whether to refuse a schema that the grammar cannot enforce completely.
        is_parsed: Whether a parser makes an object of the answer, and raises if the answer breaks the schema.
    """

    tools: Sequence[Tool] = ()
    allowed: Sequence[Tool] = ()
    mode: Mode = "auto"
    parallel: bool = True
    schema: dict[str, Any] | None = None
    describes_schema: bool = False
    strict: bool = False
    is_parsed: bool = False

    @classmethod
    def from_call(cls, kwargs: dict[str, Any]) -> ResponseFormat:
        """Take the format of the answer out of a call's keyword arguments.

        Args:
            kwargs: `tools`, `tool_choice`, `parallel_tool_calls`, `strict` and `response_format` are removed from it.

        Raises:
            InvalidRequestError: One of them is invalid.
        """
        strict = kwargs.pop("strict", None)
        tools = openai_tools(kwargs.pop("tools", None) or (), strict=strict)
        choice = kwargs.pop("tool_choice", None)
        mode, allowed = chosen_tools(choice, tools)
        parallel = kwargs.pop("parallel_tool_calls", None)
        if parallel is None:
            parallel = not is_for_one_call(choice)
        response_format = kwargs.pop("response_format", None)
        found, described = _schema_from(response_format)
        schema = None if found is None else closed_schema_of(found, strict=strict)
        is_strict = found is not None and (strict if found.strict is None else found.strict) is True
        is_parsed = isinstance(response_format, dict) and PARSED in response_format
        return cls(tools, allowed, mode, parallel, schema, described, is_strict, is_parsed)

    def constraint(self, tool_format: ToolFormat, *, thinking: bool = False) -> Constraint | None:
        """Return the constraint of the answer's tokens; None for free text.

        Args:
            tool_format: How the model writes tool calls.
            thinking: Whether the prompt ends inside the model's reasoning.

        Raises:
            InvalidRequestError: A grammar cannot express a schema; names its keyword and path.
        """
        schema = None if self.schema is None else json_grammar(self.schema, strict=self.strict)
        if self.tools and (self.mode != "none" or schema is None):
            call_format = self.call_format(tool_format)
            tools = self.allowed or self.tools  # in mode "none", the tools whose calls are forbidden
            constraint = call_format.constraint(tools, self.mode, parallel=self.parallel, otherwise=schema)
            return replace(constraint, reasoning=(START, END), reasoning_begun=thinking)
        return None if schema is None else Constraint(schema)

    @property
    def warnings(self) -> Iterator[str]:
        """One sentence for each schema that the grammar does not enforce completely."""
        for tool in self.allowed:
            function = tool["function"]
            warning = arguments_rule(function).warning
            if warning is not None:
                yield f"In the schema of tool {function['name']!r}, {warning}; a call that breaks it is an invalid one."
        if self.schema is not None:
            warning = schema_rule(self.schema, "json_schema", strict=self.strict).warning
            if warning is not None:
                yield f"In the schema of the answer, {warning}."

    def problem_of(self, text: str) -> str | None:
        """Return how an answer without calls breaks keywords that the grammar does not enforce, or None."""
        if self.schema is None or not schema_rule(self.schema, "json_schema", strict=self.strict).left_out:
            return None
        return schema_check(self.schema).problem(json.loads(text))

    def call_format(self, tool_format: ToolFormat) -> ToolFormat:
        """Return the model's tool format for this answer: calls need markers where an object may be the answer."""
        return tool_format if self.schema is None or self.mode == "any" else tool_format.marked

    def parser(self, tool_format: ToolFormat) -> ToolCallParser | None:
        """Return a parser that separates calls in the model's format from text; None where no tool can be called."""
        return self.call_format(tool_format).parser(self.allowed) if self._may_call else None

    def markers(self, tool_format: ToolFormat) -> tuple[str, ...]:
        """Return the markers of calls in the model's format; none where no tool can be called."""
        return tool_format.delimiters.starts if self._may_call else ()

    @property
    def _may_call(self) -> bool:
        return bool(self.allowed) and self.mode != "none"

    def with_instructions(
        self, turns: Sequence[Turn], tool_format: ToolFormat, *, template_takes_tools: bool
    ) -> list[Turn]:
        """Return a conversation whose system message describes the schema, and a tool format new to the template.

        Args:
            turns: The conversation.
            tool_format: How the model writes tool calls.
            template_takes_tools: Whether the chat template presents tools; if not, `ToolFormat.system_prompt` does.
        """
        call_format = self.call_format(tool_format)
        if template_takes_tools and self._may_call and call_format.instructions != tool_format.instructions:
            turns = with_system_section(turns, call_format.instructions)
        if self.describes_schema and self.schema is not None:
            schema = json.dumps(self.schema, ensure_ascii=False)
            turns = with_system_section(turns, f"Answer with a JSON object that fits this schema:\n{schema}")
        return list(turns)


def _schema_from(response_format: Any) -> tuple[ObjectSchema | None, bool]:
    """Return the schema of a `response_format`, and whether the prompt describes it."""
    if response_format is None:
        return None, False
    if not isinstance(response_format, dict):
        return object_schema_of(response_format), True
    kind = response_format.get("type")
    if kind == "text":
        return None, False
    if kind == "json_object" and "schema" not in response_format:
        return ObjectSchema({"type": "object"}), False
    described = response_format.get("schema" if kind == "json_object" else "json_schema")
    if kind in ("json_object", "json_schema") and isinstance(described, dict):
        return object_schema_of(described), True
    msg = (
        f"response_format={response_format!r} is none of a pydantic class, a dataclass, a TypedDict, "
        '{"type": "json_schema", "json_schema": {"name": ..., "schema": ...}}, {"type": "json_object"} (also '
        'with "schema": ...) and {"type": "text"}'
    )
    raise InvalidRequestError(msg)
