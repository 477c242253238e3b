"""Formats of tool calls: constraints, parsing and rendering."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_session import answered, text

from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.tools.formats import (
    FORMATS,
    HERMES,
    LLAMA,
    LLAMA_PYTHON_TAG,
    MISTRAL,
    ToolFormat,
    chosen_tools,
    find_format,
    is_for_one_call,
)
from langchain_petals.chat.tools.parser import BrokenCall, CallPart, TextPart, ToolCallParser
from langchain_petals.chat.tools.schema import arguments_schema
from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from langchain_petals.chat.tools.parser import Part


def tool(name: str, parameters: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, **({"parameters": parameters} if parameters else {}), **more},
    }


WEATHER = tool(
    "weather",
    {
        "type": "object",
        "properties": {
            "place": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["°C", "°F"]},
        },
        "required": ["place"],
    },
)
NOW = tool("now")
AWKWARD = tool(
    'say "花"', {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": ["boolean", "string"]}}}
)
TOOLS = [WEATHER, NOW, AWKWARD]
BY_NAME = {each["function"]["name"]: each["function"] for each in TOOLS}

formats = pytest.mark.parametrize("wire", FORMATS.values(), ids=FORMATS.keys())


def parts_of(
    wire: ToolFormat, said: str, cuts: Sequence[int] = (), names: Sequence[str] = ("f", "g", *BY_NAME)
) -> list[Part]:
    """Feed a text in pieces of these sizes; return the parts, with those of one text or call joined."""
    numbers = itertools.count()
    bare = [f"{begin}{json.dumps(name, ensure_ascii=False)}" for begin in wire.delimiters.bare for name in names]
    parser = ToolCallParser(wire.delimiters, bare, identify=lambda: f"id{next(numbers)}")
    found: list[Part] = []
    at = 0
    for size in [*cuts, len(said) or 1]:
        found += parser.feed(said[at : at + size])
        at += size
    found += parser.close()
    joined: list[Part] = []
    for part in found:
        last = joined[-1] if joined else None
        if isinstance(part, TextPart) and isinstance(last, TextPart):
            joined[-1] = TextPart(last.text + part.text)
        elif isinstance(part, CallPart) and isinstance(last, CallPart) and part.index == last.index:
            assert part.id is None
            joined[-1] = CallPart(part.index, last.id, last.name or part.name, last.arguments + part.arguments)
        else:
            joined.append(part)
    return joined


def calls_in(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [{"name": part.name, "args": json.loads(part.arguments)} for part in parts if isinstance(part, CallPart)]


def content_of(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


# ---- constraints


@formats
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("name", ["byte_tokenizer", "merging_tokenizer", "llama_tokenizer"])
def test_forced_calls_parse_fit_their_schemas_and_render_back(
    wire: ToolFormat, name: str, request: pytest.FixtureRequest, *, parallel: bool
) -> None:
    tokenizer = request.getfixturevalue(name)
    grammars, numbers = Grammars(tokenizer), set()
    for seed in range(12):
        constraint = wire.constraint(TOOLS, "any", parallel=parallel)
        said = text(
            answered(tokenizer, Request([40], 150, Sampling(seed=seed), constraint=constraint), grammars, seed=seed)
        )
        parts = parts_of(wire, said)
        calls = calls_in(parts)
        assert len(calls) == len(parts) > 0
        for call in calls:
            jsonschema.validate(call["args"], arguments_schema(BY_NAME[call["name"]]))
        assert wire.render(calls) == said
        numbers.add(len(calls))
    assert max(numbers) == 1 or parallel


@formats
def test_free_text_may_turn_into_calls(wire: ToolFormat, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    bare = [f'{begin}"weather"' for begin in wire.delimiters.bare]
    for start in (*wire.delimiters.starts, *bare):
        before = "" if start in bare else f"Well.{wire.delimiters.before}"
        request = Request(
            [40], 160, Sampling(greedy=True), constraint=wire.constraint([WEATHER, AWKWARD], parallel=False)
        )
        said = text(answered(byte_tokenizer, request, said=[*(before + start).encode()]))
        assert said.startswith(before + start)
        parts = parts_of(wire, said)
        assert content_of(parts) == before.strip()
        [call] = calls_in(parts)
        jsonschema.validate(call["args"], arguments_schema(BY_NAME[call["name"]]))


@pytest.mark.parametrize(
    "said", ['{"name": "Bob", "age": 3}', '{"name": "weathers"}', '{"name":"Bob"}', '{"type": "x"}']
)
def test_json_that_names_no_tool_is_text(byte_tokenizer: PreTrainedTokenizerFast, said: str) -> None:
    request = Request([40], 60, Sampling(greedy=True), constraint=LLAMA.constraint(TOOLS))
    end = byte_tokenizer.eos_token_id
    written = text(answered(byte_tokenizer, request, said=[*said.encode(), end]))
    assert parts_of(LLAMA, written, [3, 4, 5]) == [TextPart(said)]


def test_text_may_come_between_calls(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    said = 'a\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n<tool_call>'
    request = Request([40], 170, Sampling(greedy=True), constraint=HERMES.constraint(TOOLS))
    parts = parts_of(HERMES, text(answered(byte_tokenizer, request, said=[*said.encode()])))
    assert parts[:2] == [TextPart("a"), CallPart(0, "id0", "now", "{}")]
    assert isinstance(parts[2], CallPart)
    assert parts[2].index == 1


@formats
def test_mode_none_forbids_calls(wire: ToolFormat, byte_tokenizer: PreTrainedTokenizerFast) -> None:
    bare = [f'{begin}"weather"' for begin in wire.delimiters.bare]
    for start in (*wire.delimiters.starts, *bare):
        request = Request([40], len(start) + 9, Sampling(greedy=True), constraint=wire.constraint(TOOLS, "none"))
        said = text(answered(byte_tokenizer, request, said=[*start.encode()]))
        assert not said.strip()  # the beginning of the call is not in the answer
        assert parts_of(wire, said) == []


def test_mode_none_allows_objects_that_are_no_calls(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    said = '{"name": "Bob", "age": 3}'
    request = Request([40], len(said), Sampling(greedy=True), constraint=LLAMA.constraint(TOOLS, "none"))
    assert text(answered(byte_tokenizer, request, said=[*said.encode()])) == said


@formats
@pytest.mark.parametrize(
    ("schema", "reason"), [({"not": {}}, "not"), ({"minProperties": 3}, "twice"), ({"const": float("nan")}, "JSON")]
)
def test_error_for_a_strict_schema_names_its_tool(wire: ToolFormat, schema: Any, reason: str) -> None:
    odd = tool("odd", {"type": "object", "properties": {"x": schema}})
    odd["function"]["strict"] = True
    with pytest.raises(InvalidRequestError, match=rf"the schema of tool 'odd' .*{reason}"):
        wire.constraint([NOW, odd])


# ---- tool_choice


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [
        (None, "auto", ["weather", "now"]),
        ("auto", "auto", ["weather", "now"]),
        ({"type": "auto"}, "auto", ["weather", "now"]),
        ("none", "none", []),
        (False, "none", []),
        ("any", "any", ["weather", "now"]),
        ("required", "any", ["weather", "now"]),
        (True, "any", ["weather", "now"]),
        ({"type": "any"}, "any", ["weather", "now"]),
        ("now", "any", ["now"]),
        ({"type": "function", "function": {"name": "now"}}, "any", ["now"]),
        ({"type": "tool", "name": "now"}, "any", ["now"]),
    ],
)
def test_tool_choice(choice: Any, mode: str, names: list[str]) -> None:
    chosen, tools = chosen_tools(choice, [WEATHER, NOW])
    assert (chosen, [each["function"]["name"] for each in tools]) == (mode, names)


@pytest.mark.parametrize("name", ["auto", "none", "any", "required"])
def test_tool_choice_in_a_dictionary_means_the_tool_of_that_name(name: str) -> None:
    tools = [NOW, tool(name)]
    for choice in ({"type": "function", "function": {"name": name}}, {"type": "tool", "name": name}):
        assert chosen_tools(choice, tools) == ("any", [tools[1]])
        with pytest.raises(InvalidRequestError, match="names no bound tool"):
            chosen_tools(choice, [NOW])


@pytest.mark.parametrize("choice", ["then", {"type": "function", "function": {"name": "then"}}, 3, {"type": "then"}])
def test_tool_choice_that_is_not_bound_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"names no bound tool \(bound: 'weather', 'now'\)"):
        chosen_tools(choice, [WEATHER, NOW])


@pytest.mark.parametrize("choice", [{"type": "function", "function": "now"}, {}, {"name": ""}])
def test_tool_choice_that_says_nothing_is_refused(choice: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r'write {"type": "function", "function": {"name": ...}}'):
        chosen_tools(choice, [NOW])


@pytest.mark.parametrize(
    ("choice", "once"),
    [
        (None, False),
        ("any", False),
        ("now", True),
        ({"type": "any"}, False),
        ({"type": "function", "function": {"name": "now"}}, True),
        ({"type": "any", "disable_parallel_tool_use": True}, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, True),
        ({"type": "tool", "name": "now", "disable_parallel_tool_use": False}, False),
    ],
)
def test_tool_choice_says_whether_there_is_one_call(choice: Any, once: bool) -> None:  # noqa: FBT001
    assert is_for_one_call(choice) is once
    kwargs = {"tools": [NOW], "tool_choice": choice}
    assert ResponseFormat.from_call(dict(kwargs)).parallel is not once
    assert ResponseFormat.from_call(kwargs | {"parallel_tool_calls": True}).parallel


def test_call_cannot_be_forced_without_tools() -> None:
    with pytest.raises(InvalidRequestError, match="bind at least one"):
        chosen_tools("any", [])


# ---- detection of the format


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ '<tool_call>' }}", HERMES),
        ("{{ '<tool_call>' }} \"parameters\": ", HERMES),
        ("{%- if builtin %}<|python_tag|>{% endif %}", LLAMA),
        ('{{- \'{"name": "\' + name + \'", "parameters": \' }}', LLAMA),
        ("{{ '[TOOL_CALLS] [' }}", MISTRAL),
        ("{{ '<|im_start|>' + message.role }}", HERMES),
        (None, HERMES),
    ],
)
def test_format_is_detected_in_the_template(template: str | None, expected: ToolFormat) -> None:
    assert find_format(None, template) is expected


def test_format_can_be_named() -> None:
    assert find_format("llama-3.1-python-tag", "{{ '<tool_call>' }}") is LLAMA_PYTHON_TAG
    with pytest.raises(InvalidRequestError, match="there are hermes, llama"):
        find_format("lama", None)


@formats
def test_system_prompt_has_tools_and_instructions(wire: ToolFormat) -> None:
    prompt = wire.system_prompt(TOOLS)
    assert all(json.dumps(each, ensure_ascii=False) in prompt for each in TOOLS)
    example = wire.render([{"name": "N", "args": {}, "id": None}])
    assert example.replace('"N"', "<name>").replace("{}", "<arguments>") in prompt


# ---- parsing

CALL = '{"name": "f", "arguments": {"x": 1}}'


@pytest.mark.parametrize(
    ("wire", "said", "expected"),
    [
        (HERMES, "", []),
        (HERMES, " a < b \n", [TextPart(" a < b \n")]),
        (HERMES, "a <tool_cal", [TextPart("a <tool_cal")]),
        (HERMES, f"<tool_call>\n{CALL}\n</tool_call>", [CallPart(0, "id0", "f", '{"x": 1}')]),
        (HERMES, f"<tool_call>{CALL}</tool_call>  \n", [CallPart(0, "id0", "f", '{"x": 1}')]),
        (HERMES, f"<tool_call>{CALL}", [CallPart(0, "id0", "f", '{"x": 1}')]),
        (
            HERMES,
            f"Yes.\n\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call> No.",
            [
                TextPart("Yes.\n"),
                CallPart(0, "id0", "f", '{"x": 1}'),
                CallPart(1, "id1", "f", '{"x": 1}'),
                TextPart(" No."),
            ],
        ),
        (
            HERMES,
            f"<tool_call>\n{CALL}\n</tool_call>\nDone.",
            [CallPart(0, "id0", "f", '{"x": 1}'), TextPart("Done.")],
        ),
        (
            HERMES,
            f"<tool_call>\n{CALL}\n</tool_call>\n<tool",
            [CallPart(0, "id0", "f", '{"x": 1}'), TextPart("<tool")],
        ),
        (
            HERMES,
            f"Yes.\n<tool_call>\n{CALL}\n</tool_call>\nDone.",
            [TextPart("Yes."), CallPart(0, "id0", "f", '{"x": 1}'), TextPart("\nDone.")],
        ),
        (
            HERMES,
            '<tool_call>{"name": "f", "arguments": {"a": "</tool_call>}\\"", "b": [{"name": "g"}]}}</tool_call>',
            [CallPart(0, "id0", "f", '{"a": "</tool_call>}\\"", "b": [{"name": "g"}]}')],
        ),
        (HERMES, '<tool_call>{"arguments": {}, "name": "f"}</tool_call>', [CallPart(0, "id0", "f", "{}")]),
        (HERMES, '<tool_call>{"name": "f"}</tool_call>', [CallPart(0, "id0", "f", "{}")]),
        (LLAMA, '{"name": "f", "parameters": {"x": 1}}', [CallPart(0, "id0", "f", '{"x": 1}')]),
        (LLAMA, '<|python_tag|>{"name": "f", "parameters": {}}', [CallPart(0, "id0", "f", "{}")]),
        (
            LLAMA,
            '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}',
            [CallPart(0, "id0", "f", "{}"), CallPart(1, "id1", "g", "{}")],
        ),
        (LLAMA, '{"nam', [TextPart('{"nam')]),
        (LLAMA, '{"names": []}', [TextPart('{"names": []}')]),
        (LLAMA, 'See {"name": "f"}', [TextPart('See {"name": "f"}')]),
        (
            MISTRAL,
            f"Hm.[TOOL_CALLS] [{CALL}, {CALL}]",
            [TextPart("Hm."), CallPart(0, "id0", "f", '{"x": 1}'), CallPart(1, "id1", "f", '{"x": 1}')],
        ),
    ],
)
def test_answer_is_split_into_text_and_calls(wire: ToolFormat, said: str, expected: list[Part]) -> None:
    assert parts_of(wire, said) == expected


@pytest.mark.parametrize(
    ("wire", "said", "error", "after"),
    [
        (HERMES, '<tool_call>{"name": "f", "arguments": {"x": }}</tool_call>', "not valid JSON", ""),
        (HERMES, '<tool_call>{"name": "f", "arguments": {</tool_call>', "not complete", " So."),
        (HERMES, '<tool_call>{"name": "f", "argu', "ends in the middle", ""),
        (HERMES, "<tool_call>f(1)</tool_call>", "'f' is not the beginning of a JSON object", " So."),
        (HERMES, "<tool_call></tool_call>", "no JSON object", ""),
        (HERMES, '<tool_call>{"arguments": {}}</tool_call>', "names no tool", ""),
        (HERMES, '<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "arguments are no JSON object", ""),
        (MISTRAL, "[TOOL_CALLS] f", "'f' is not the beginning", ""),
        (LLAMA, '{"name": "f", "parameters": 1}', "parameters are no JSON object", ""),
    ],
)
def test_unparsable_call_is_broken(wire: ToolFormat, said: str, error: str, after: str) -> None:
    parts = parts_of(wire, said + after)
    [broken] = [part for part in parts if isinstance(part, BrokenCall)]
    rest = parts[parts.index(broken) + 1 :]
    assert all(isinstance(part, CallPart) and part.index == broken.index for part in parts[: parts.index(broken)])
    assert broken.text == said
    assert error in broken.error
    assert content_of(rest) == after


def test_arguments_are_returned_as_they_are_written() -> None:
    parser = HERMES.parser([])
    told = [
        parser.feed(piece) for piece in ("Hi", "\n<tool", "_call>\n", '{"name": "f", "arg', 'uments": {"x": "a', 'b"}}')
    ]
    assert told[:3] == [[TextPart("Hi")], [], []]
    [first] = told[3]
    assert isinstance(first, CallPart)
    assert (first.name, first.arguments) == ("f", "")
    assert told[4:] == [[CallPart(0, arguments='{"x": "a')], [CallPart(0, arguments='b"}')]]
    assert parser.feed("\n</tool_call>") + parser.close() == []


@formats
def test_object_without_marker_is_text_in_the_marked_format(wire: ToolFormat) -> None:
    said = '{"name": "f", "parameters": {}}'
    assert parts_of(wire.marked, said) == [TextPart(said)]
    written = wire.marked.render([{"name": "f", "args": {}, "id": None}])
    assert written.startswith(wire.delimiters.starts)
    assert calls_in(parts_of(wire.marked, written)) == [{"name": "f", "args": {}}]
    assert wire.marked.marked == wire.marked
    quoted = json.dumps(f"{wire.delimiters.starts[0]} {said}")
    for cuts in ([], [1] * len(quoted)):
        assert parts_of(wire.marked, quoted, cuts) == [TextPart(quoted)]


@pytest.mark.parametrize("space", ["\u3000", "\xa0", "\x1c"])
def test_unicode_space_before_a_bare_call_makes_it_text(space: str) -> None:
    said = f'{space}{{"name": "f", "parameters": {{}}}}'
    assert parts_of(LLAMA, said) == [TextPart(said)]


def test_calls_have_different_identifiers() -> None:
    said = f"<tool_call>{CALL}</tool_call>" * 2
    identifiers = [part.id for part in HERMES.parser([]).feed(said) if isinstance(part, CallPart)]
    assert len({*identifiers}) == 2


MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", '{"name": "', "<tool"]
WORDS = st.lists(
    st.sampled_from([*'a \n{}"[],;', "é花", *MARKS, CALL, CALL.replace("arguments", "parameters")]), max_size=8
)


@formats
@given(words=WORDS, cuts=st.lists(st.integers(1, 9), max_size=60))
def test_parts_do_not_depend_on_how_the_text_is_cut(wire: ToolFormat, words: list[str], cuts: list[int]) -> None:
    said = "".join(words)
    whole = parts_of(wire, said)
    assert parts_of(wire, said, cuts) == whole
    told = content_of(whole)
    assert not any(start in told for start in wire.delimiters.starts)


ARGUMENTS = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


@formats
@given(
    calls=st.lists(
        st.fixed_dictionaries({"name": st.text(min_size=1, max_size=9), "args": ARGUMENTS}), min_size=1, max_size=3
    ),
    content=st.sampled_from(["", "One moment.", "One\n"]),
    cuts=st.lists(st.integers(1, 9), max_size=60),
)
def test_rendered_answer_is_parsed_back(wire: ToolFormat, calls: Any, content: str, cuts: list[int]) -> None:
    said = wire.render(calls, content)
    parts = parts_of(wire, said, cuts, [call["name"] for call in calls])
    assert calls_in(parts) == calls
    assert content_of(parts) == content
    assert wire.render(calls_in(parts), content_of(parts)) == said
