"""A response format decides which parts of a text are calls: those that a grammar constrained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_session import answered, text

from langchain_petals.chat.reasoning import ReasoningSplitter
from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.tools.formats import FORMATS, LLAMA
from langchain_petals.chat.tools.parser import BrokenCall, CallPart, TextPart
from langchain_petals.engine.request import Request, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from langchain_petals.chat.tools.formats import ToolFormat
    from langchain_petals.chat.tools.parser import Part

BOB = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name"]}
AS_BOB = {"type": "json_schema", "json_schema": {"name": "person", "schema": BOB}}
SAID_BOB = '{"name": "Bob", "age": 5}'

formats = pytest.mark.parametrize("tool_format", FORMATS.values(), ids=FORMATS.keys())


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Answer:
    """An answer with a given beginning, from the token loop to reasoning, text and calls."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        tool_format: ToolFormat,
        said: str,
        *,
        started: bool = False,
        **of: Any,
    ) -> None:
        form = ResponseFormat.from_call({"tools": [add], **of})
        constraint = form.constraint(tool_format, thinking=started)
        request = Request([40], len(said) + 90, Sampling(greedy=True), constraint=constraint)
        end = tokenizer.eos_token_id
        self.written = text(answered(tokenizer, request, said=[*said.encode(), *[end] * 9]))
        ruled = constraint is not None and constraint.grammar is not None
        splitter, parser = ReasoningSplitter(started=started, ends=form.markers(tool_format)), form.parser(tool_format)
        self.reasoning, told = ("", self.written) if ruled else splitter.add(self.written)
        if not ruled:
            more, rest = splitter.flush()
            self.reasoning, told = self.reasoning + more, told + rest
        self.parts: list[Part] = [TextPart(told)] if parser is None else [*parser.feed(told), *parser.close()]

    @property
    def content(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    def call(self) -> tuple[str | None, Any]:
        [part] = self.parts
        assert isinstance(part, CallPart)
        return part.name, json.loads(part.arguments)


@formats
@pytest.mark.parametrize("choice", [None, "none"])
def test_an_object_is_an_answer_and_no_call_beside_a_schema(
    byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat, choice: Any
) -> None:
    answer = Answer(byte_tokenizer, tool_format, SAID_BOB, tool_choice=choice, response_format=AS_BOB)
    assert answer.content == answer.written == SAID_BOB


@formats
def test_a_marker_inside_an_object_is_text(byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat) -> None:
    said = json.dumps({"name": "Bob <tool_call> <|python_tag|> [TOOL_CALLS]"})
    answer = Answer(byte_tokenizer, tool_format, said, response_format=AS_BOB)
    assert answer.content == answer.written == said


@formats
def test_a_call_is_possible_beside_a_schema(byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat) -> None:
    [marker] = tool_format.delimiters.starts
    name, arguments = Answer(byte_tokenizer, tool_format, marker, response_format=AS_BOB).call()
    assert (name, set(arguments)) == ("add", {"a", "b"})


@formats
@pytest.mark.parametrize("takes_tools", [False, True])
def test_the_prompt_describes_the_marker(tool_format: ToolFormat, *, takes_tools: bool) -> None:
    form = ResponseFormat.from_call({"tools": [add], "response_format": AS_BOB})
    [system, _] = form.with_instructions(
        [{"role": "user", "content": "x"}], tool_format, template_takes_tools=takes_tools
    )
    [marker] = tool_format.delimiters.starts
    # for a template without tools, the format itself presents them
    assert marker in form.call_format(tool_format).system_prompt(form.tools)
    assert (marker in system["content"]) == (takes_tools and tool_format is LLAMA)


@formats
def test_a_demanded_call_is_one_beside_a_schema(
    byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat
) -> None:
    answer = Answer(byte_tokenizer, tool_format, "", tool_choice="add", response_format=AS_BOB)
    assert answer.call()[0] == "add"


@formats
@pytest.mark.parametrize("started", [False, True])
def test_a_call_ends_the_reasoning(
    byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat, *, started: bool
) -> None:
    [marker] = tool_format.delimiters.starts
    said = f"{'' if started else '<think>'}Perhaps {marker}"
    answer = Answer(byte_tokenizer, tool_format, said, started=started, parallel_tool_calls=False)
    assert answer.reasoning == "Perhaps"
    name, arguments = answer.call()
    assert (name, set(arguments)) == ("add", {"a", "b"})


@pytest.mark.parametrize("started", [False, True])
def test_a_bare_call_after_reasoning_is_constrained(byte_tokenizer: PreTrainedTokenizerFast, *, started: bool) -> None:
    said = f"{'' if started else '<think>'}{SAID_BOB}</think>\n\n"
    answer = Answer(byte_tokenizer, LLAMA, said + '{"name": "add", "nosuch": oops', started=started)
    assert answer.reasoning == SAID_BOB
    assert answer.written.removeprefix(said).startswith('{"name": "add", "parameters": {"a": ')
    name, arguments = answer.call()
    assert (name, set(arguments)) == ("add", {"a", "b"})


@pytest.mark.parametrize("before", ["<think>a</think>Well, ", "\u3000", "<think>a</think>\xa0"])
def test_an_object_after_text_is_no_call(byte_tokenizer: PreTrainedTokenizerFast, before: str) -> None:
    said = before + '{"name": "nosuch", "parameters": oops'
    answer = Answer(byte_tokenizer, LLAMA, said)
    assert answer.written == said
    assert answer.content == said.removeprefix("<think>a</think>")


CALL = '{"name": "add", "parameters": {"a": 1, "b": 2}}'
MARKERS = [marker for each in FORMATS.values() for marker in each.delimiters.starts]
OBJECTS = ['{"name": "', '{"name": "nosuch", "parameters": oops', CALL, CALL.replace("parameters", "arguments")]
WORDS = st.sampled_from(["<think>", "</think>", *MARKERS, "</tool_call>", *OBJECTS, "a", "\n", " ", "\u3000"])


@formats
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(WORDS, max_size=7),
    started=st.booleans(),
    parallel_tool_calls=st.booleans(),
    tool_choice=st.sampled_from([None, "any", "none"]),
    response_format=st.sampled_from([None, AS_BOB]),
)
def test_calls_in_any_text_fit_their_schemas(
    byte_tokenizer: PreTrainedTokenizerFast, tool_format: ToolFormat, words: list[str], **of: Any
) -> None:
    answer = Answer(byte_tokenizer, tool_format, "".join(words), **of)
    calls: dict[int, list[CallPart]] = {}
    for part in answer.parts:
        assert not isinstance(part, BrokenCall)
        if isinstance(part, CallPart):
            calls.setdefault(part.index, []).append(part)
    assert not calls or of["tool_choice"] != "none"
    assert calls or of["tool_choice"] != "any"
    for parts in calls.values():
        assert [part.name for part in parts if part.name] == ["add"]
        arguments = json.loads("".join(part.arguments for part in parts))
        assert {name: type(value) for name, value in arguments.items()} == {"a": int, "b": int}
    if of["response_format"] and not calls:
        jsonschema.validate(json.loads(answer.content), BOB)


def test_there_is_no_parser_where_no_tool_can_be_called() -> None:
    for form in (ResponseFormat(), ResponseFormat.from_call({"tools": [add], "tool_choice": "none"})):
        assert form.parser(LLAMA) is None
        assert form.markers(LLAMA) == ()
