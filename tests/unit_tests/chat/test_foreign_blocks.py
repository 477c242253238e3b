"""Blocks of other providers' models and tools are read or left out; unreadable blocks of people are refused."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_petals.chat.foreign_blocks import inside, opened
from langchain_petals.chat.messages import turns_from_messages
from langchain_petals.errors import InvalidRequestError

SUNNY = {"type": "text", "text": "It is sunny."}
PNG = "iVBORw0KGgoAAAANSUhEUg"

# ---- in AI messages

SAY_NOTHING = [
    # OpenAI
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "β"}},
    {"type": "file_search_call", "id": "fs_1", "queries": ["β"], "results": [{"text": "found", "score": 0.5}]},
    {"type": "code_interpreter_call", "id": "ci_1", "code": "1", "outputs": [{"type": "logs", "logs": "1"}]},
    {"type": "image_generation_call", "id": "ig_1", "result": PNG},
    {"type": "computer_call", "call_id": "c", "action": {"type": "click", "x": 1, "y": 2}},
    {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}},
    {"type": "mcp_call", "id": "mcp_1", "name": "ask", "arguments": "{}", "output": "found", "server_label": "x"},
    {"type": "mcp_list_tools", "id": "mcpl_1", "tools": [{"name": "ask", "input_schema": {}}]},
    {"type": "mcp_approval_request", "id": "mcpr_1", "name": "ask", "arguments": "{}"},
    # Anthropic
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "β"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"type": "web_search_result"}]},
    {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {"stdout": "1", "return_code": 0}},
    {"type": "mcp_tool_use", "id": "m", "name": "ask", "input": {}, "server_name": "x"},
    {"type": "mcp_tool_result", "tool_use_id": "m", "content": [{"type": "text", "text": "found"}]},
    {"type": "container_upload", "file_id": "f"},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}},
    # Google
    {"type": "executable_code", "executable_code": "print(1)", "language": "PYTHON"},
    {"type": "code_execution_result", "code_execution_result": "1", "outcome": "OUTCOME_OK"},
    {"executable_code": {"code": "print(1)", "language": "PYTHON"}},
    {"executableCode": {"code": "print(1)"}, "thoughtSignature": "abc"},
    {"inlineData": {"mimeType": "image/png", "data": PNG}},
    {"fileData": {"fileUri": "gs://x/y.png", "mimeType": "image/png"}},
    {"type": "media", "mime_type": "audio/wav", "data": PNG},
    # Bedrock
    {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
    {"document": {"format": "pdf", "name": "x", "source": {"bytes": b"%PDF"}}},
    # Mistral
    {"type": "reference", "reference_ids": [1, 2]},
    {"type": "tool_file", "tool": "image_generation", "file_id": "f"},
    # LangChain
    {"type": "image", "base64": PNG, "mime_type": "image/png"},
    {"type": "image", "url": "https://example.com/x.png"},
    {"type": "audio", "base64": PNG, "mime_type": "audio/wav"},
    {"type": "video", "file_id": "f"},
    {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf"},
    {"type": "text-plain", "url": "https://example.com/x.txt"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    {"type": "image_url", "image_url": "https://example.com/x.png"},
    {"type": "non_standard", "value": {"type": "web_search_call", "id": "ws_1"}},
    {"type": "non_standard", "value": {"anything": [1, None]}},
    # of no provider
    {"type": "hologram", "depth": 3},
    {"type": ["text"], "words": 1},
    {"type": None},
    {"type": 5, "value": None},
    {"unheard_of": {"a": 1}},
    {"Text": "?"},
    {},
]


@pytest.mark.parametrize("block", SAY_NOTHING, ids=str)
@pytest.mark.parametrize("role", ["AIMessage", "ChatMessage"])
def test_a_block_without_text_is_left_out_with_a_warning(role: str, block: dict[str, Any]) -> None:
    content = [SUNNY, block, {"type": "text", "text": " Go out!"}]
    answer = AIMessage(content) if role == "AIMessage" else ChatMessage(content, role="assistant")
    with pytest.warns(UserWarning, match=r"leaves out .* in AI messages") as warned:
        found = turns_from_messages([HumanMessage("How is the weather?"), answer, HumanMessage("Really?")])
    assert found[1] == {"role": "assistant", "content": "It is sunny. Go out!"}
    assert len(found) == 3
    assert len(warned) == 1


def test_the_warning_names_what_was_left_out_and_where() -> None:
    messages = [
        AIMessage([SUNNY, {"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "image", "base64": PNG}]),
        ToolMessage([{"type": "image", "base64": PNG}], tool_call_id="c1"),
        AIMessage([SUNNY, {"type": "mcp_call"}]),
    ]
    with pytest.warns(UserWarning, match="leaves out") as warned:
        turns_from_messages(messages)
    [shown] = [str(each.message) for each in warned]
    assert shown == (
        "Petals serves models of text only. The prompt leaves out a block of type 'mcp_call', a block of type "
        "'web_search_call', an image in AI messages; an image in tools' results."
    )
    assert warned[0].filename == __file__


def test_each_warning_is_shown_once_in_a_conversation() -> None:
    messages: list[Any] = []
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(5):
            messages += [HumanMessage("And now?"), AIMessage([SUNNY, {"type": "web_search_call"}])]
            turns_from_messages(messages)
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"text": "hi"}, "hi"),
        ({"text": "hi", "thoughtSignature": "abc"}, "hi"),
        ({"text": "hi", "index": 0}, "hi"),
        ({"type": "text", "text": "hi", "citations": [{"type": "char_location", "cited_text": "hello"}]}, "hi"),
        ({"type": "text", "text": "hi [1]", "annotations": [{"type": "citation", "url": "https://x"}]}, "hi [1]"),
        ({"type": "text", "citations": [{"type": "char_location"}]}, ""),
        ({"type": "text", "text": {"value": "hi", "annotations": []}}, "hi"),
        ({"type": "text", "text": None}, ""),
        ({"type": "text", "text": 5}, "5"),
        ({"type": "text", "text": ["h", {"text": "i"}]}, "hi"),
        ({"type": "citation", "cited_text": "hi", "url": "https://example.com"}, "hi"),
        ({"citationsContent": {"content": [{"text": "h"}, {"text": "i"}], "citations": [{"title": "x"}]}}, "hi"),
        ({"guardContent": {"text": {"text": "hi", "qualifiers": ["query"]}}}, "hi"),
        ({"type": "guard_content", "guard_content": {"text": "hi"}}, "hi"),
        (
            {"type": "search_result", "source": "https://x", "title": "T", "content": [SUNNY]},
            "T\nhttps://x\nIt is sunny.",
        ),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}, "hi"),
        ({"type": "document", "source": {"type": "content", "content": [SUNNY]}}, "It is sunny."),
        ({"type": "document", "source": {"type": "content", "content": "hi"}}, "hi"),
        ({"document": {"format": "txt", "name": "x", "source": {"text": "hi"}}}, "hi"),
        ({"type": "resource", "resource": {"uri": "file:///x", "mimeType": "text/plain", "text": "hi"}}, "hi"),
        ({"type": "text-plain", "text": "hi", "mime_type": "text/plain"}, "hi"),
        ({"type": "hologram", "text": "hi"}, "hi"),
        ({"type": "non_standard", "value": {"text": "hi"}}, "hi"),
        ({"type": "non_standard", "value": "hi"}, "hi"),
        ({"type": "non_standard", "value": {"type": "non_standard", "value": {"type": "text", "text": "hi"}}}, "hi"),
        ({"type": "refusal", "refusal": "hi"}, "hi"),
        ({"type": "redacted_thinking", "data": "abc"}, ""),
        ({"cachePoint": {"type": "default"}}, ""),
    ],
    ids=str,
)
def test_text_in_the_blocks_of_every_provider_is_kept(block: dict[str, Any], text: str) -> None:
    assert turns_from_messages([AIMessage([block])]) == [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "6 * 7"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "6 * 7"}]},
        {"type": "thinking", "thinking": [{"type": "text", "text": "6 * "}, {"type": "text", "text": "7"}]},
        {"type": "reasoning_content", "reasoning_content": {"text": "6 * 7", "signature": "x"}},
        {"reasoningContent": {"reasoningText": {"text": "6 * 7", "signature": "x"}}},
        {"text": "6 * 7", "thought": True, "thoughtSignature": "abc"},
    ],
    ids=str,
)
def test_reasoning_of_every_provider_stays_out_of_the_content(block: dict[str, Any]) -> None:
    assert turns_from_messages([AIMessage([block, {"text": "42"}])]) == [
        {"role": "assistant", "content": "42", "reasoning_content": "6 * 7"}
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
        {"type": "reasoning", "summary": None},
        {"reasoningContent": {"redactedContent": b"abc"}},
    ],
    ids=str,
)
def test_encrypted_reasoning_is_left_out(block: dict[str, Any]) -> None:
    assert turns_from_messages([AIMessage([block, {"text": "42"}])]) == [{"role": "assistant", "content": "42"}]


def test_reasoning_beside_the_content_may_be_of_any_type() -> None:
    message = AIMessage("42", additional_kwargs={"reasoning_content": {"text": "6 * 7"}})
    assert turns_from_messages([message])[0]["reasoning_content"] == "6 * 7"


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


@pytest.mark.parametrize(
    ("block", "identifier"),
    [
        ({"toolUse": {"toolUseId": "c1", "name": "add", "input": {"a": 1}}}, "c1"),
        ({"type": "tool_use", "id": "c1", "name": "add", "input": '{"a": 1}'}, "c1"),
        ({"functionCall": {"name": "add", "args": {"a": 1}}, "thoughtSignature": "abc"}, None),
        ({"type": "function_call", "name": "add", "arguments": {"a": 1}, "call_id": "c1"}, "c1"),
    ],
    ids=str,
)
def test_calls_of_every_provider_appear_once(block: dict[str, Any], identifier: str | None) -> None:
    call = CALL | {"id": identifier} if identifier else CALL
    assert turns_from_messages([AIMessage([block])]) == [{"role": "assistant", "content": "", "tool_calls": [call]}]
    message = AIMessage([block], tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c1"}])
    assert turns_from_messages([message]) == [{"role": "assistant", "content": "", "tool_calls": [CALL | {"id": "c1"}]}]


def test_a_chat_message_of_the_assistant_has_its_calls_and_reasoning() -> None:
    content = [
        {"type": "thinking", "thinking": "6 * 7"},
        {"toolUse": {"toolUseId": "c1", "name": "add", "input": {"a": 1}}},
    ]
    assert turns_from_messages([ChatMessage(content, role="ai")]) == [
        {"role": "assistant", "content": "", "reasoning_content": "6 * 7", "tool_calls": [CALL | {"id": "c1"}]}
    ]


def test_a_custom_tools_call_has_its_text_as_argument() -> None:
    block = {"type": "custom_tool_call", "call_id": "c1", "id": "ctc_1", "name": "run", "input": "print(1)"}
    call = {"type": "function", "function": {"name": "run", "arguments": {"__arg1": "print(1)"}}, "id": "c1"}
    assert turns_from_messages([AIMessage([block])]) == [{"role": "assistant", "content": "", "tool_calls": [call]}]


def test_a_call_with_arguments_that_are_no_object_stays_in_the_text() -> None:
    message = AIMessage([{"type": "tool_use", "id": "c1", "name": "add", "input": [1]}])
    assert turns_from_messages([message]) == [{"role": "assistant", "content": "[1]"}]


# ---- in tools' results


def result(content: Any) -> str:
    [turn] = turns_from_messages([ToolMessage(content, tool_call_id="c1")])
    assert turn["role"] == "tool"
    return str(turn["content"])


IMAGE, AUDIO, VIDEO, FILE = (
    f"[{name} was left out: this model reads text only.]" for name in ("An image", "Audio", "A video", "A file")
)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ({"type": "image", "base64": PNG, "mime_type": "image/png"}, IMAGE),
        ({"type": "image", "data": PNG, "mimeType": "image/png"}, IMAGE),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, IMAGE),
        ({"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png"}, IMAGE),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}, IMAGE),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{PNG}"}, IMAGE),
        ({"type": "input_image", "image_url": "https://example.com/x.png"}, IMAGE),
        ({"type": "computer_screenshot", "image_url": "https://example.com/x.png"}, IMAGE),
        ({"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}}, IMAGE),
        ({"inlineData": {"mimeType": "image/png", "data": PNG}}, IMAGE),
        ({"type": "resource", "resource": {"uri": "x:1", "mimeType": "image/png", "blob": PNG}}, IMAGE),
        ({"type": "file", "mime_type": "image/png", "base64": PNG}, IMAGE),
        ({"type": "audio", "data": PNG, "mimeType": "audio/wav"}, AUDIO),
        ({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}, AUDIO),
        ({"type": "video", "url": "https://example.com/x.mp4"}, VIDEO),
        ({"type": "file", "file": {"file_id": "f"}}, FILE),
        ({"type": "resource", "resource": {"uri": "x:1", "mimeType": "application/pdf", "blob": PNG}}, FILE),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}}, FILE),
        ({"type": "non_standard", "value": {"type": "image", "base64": PNG}}, IMAGE),
        (
            {"type": "hologram", "data": PNG},
            "[A block of type 'hologram' was left out: this model reads text only.]",
        ),
    ],
    ids=str,
)
def test_a_line_replaces_a_block_without_text_in_a_tools_result(block: dict[str, Any], line: str) -> None:
    with pytest.warns(UserWarning, match="leaves out .* in tools' results") as warned:
        assert result([{"type": "text", "text": "A chart:"}, block, {"type": "text", "text": "See above."}]) == (
            f"A chart:\n{line}\nSee above."
        )
    assert len(warned) == 1
    with pytest.warns(UserWarning, match="leaves out"):
        assert result([block]) == line
    with pytest.warns(UserWarning, match="leaves out"):
        assert result([{"type": "text", "text": "Charts:\n"}, block, block]) == f"Charts:\n{line}\n{line}"


def test_a_function_message_and_a_chat_message_of_a_tool_are_tools_results_too() -> None:
    content: list[Any] = ["a", {"type": "image", "base64": PNG}]
    for message in (FunctionMessage(content, name="f"), ChatMessage(content, role="tool")):
        with pytest.warns(UserWarning, match="an image in tools' results"):
            assert turns_from_messages([message])[0]["content"] == f"a\n{IMAGE}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"text": "3 degrees"}], "3 degrees"),
        ([{"json": {"β": 1}}], '{"β": 1}'),
        ([{"text": "so: "}, {"json": {"β": 1}}], 'so: \n{"β": 1}'),
        ([{"title": "β"}, {"title": "γ"}], '[{"title": "β"}, {"title": "γ"}]'),
        ([{"text": "β", "score": 0.5}], '[{"text": "β", "score": 0.5}]'),
        ([{"document": {"id": 1}, "score": 0.5}], '[{"document": {"id": 1}, "score": 0.5}]'),
        (["a", {"title": "β"}], '["a", {"title": "β"}]'),
        ([SUNNY, {"title": "β"}], 'It is sunny.\n{"title": "β"}'),
        ([{"type": "custom_tool_call_output", "output": "done"}], "done"),
        ([{"type": "resource", "resource": {"uri": "file:///x", "text": "a file"}}], "a file"),
        (
            [{"type": "resource_link", "uri": "file:///x", "name": "x", "mimeType": "image/png"}],
            '{"type": "resource_link", "uri": "file:///x", "name": "x", "mimeType": "image/png"}',
        ),
        ([{"type": "document", "source": {"type": "text", "data": "a file"}}], "a file"),
        (
            [{"type": "search_result", "title": "T", "source": "s", "content": [{"type": "text", "text": "a"}]}],
            "T\ns\na",
        ),
        ([{"type": "tool_reference", "tool_name": "add"}], '{"type": "tool_reference", "tool_name": "add"}'),
        ([{"type": "text", "text": None}], ""),
        ([{"type": "text", "text": 3}], "3"),
        ([{"type": "tool_use", "name": "add"}], '{"type": "tool_use", "name": "add"}'),
        ([{"type": "thinking", "thinking": "hm"}], '{"type": "thinking", "thinking": "hm"}'),
    ],
    ids=str,
)
def test_text_and_values_in_a_tools_result_are_kept(content: list[Any], text: str) -> None:
    assert result(content) == text


def test_results_inside_other_messages_may_hold_images() -> None:
    block = {"type": "tool_result", "tool_use_id": "c1", "content": [SUNNY, {"type": "image", "base64": PNG}]}
    converse = {
        "toolResult": {"toolUseId": "c2", "content": [{"text": "a"}, {"image": {"source": {"bytes": b"\x89"}}}]}
    }
    with pytest.warns(UserWarning, match="an image in tools' results"):
        assert turns_from_messages(
            [HumanMessage([block, {"type": "text", "text": "Well?"}]), AIMessage([converse])]
        ) == [
            {"role": "tool", "content": f"It is sunny.\n{IMAGE}", "tool_call_id": "c1"},
            {"role": "user", "content": "Well?"},
            {"role": "tool", "content": f"a\n{IMAGE}", "tool_call_id": "c2"},
        ]


def test_images_in_values_are_left_out_too() -> None:
    output = {"charts": [{"type": "image", "base64": PNG}], "rows": 3, "raw": b"abc", "when": ("now",)}
    message = AIMessage([{"type": "server_tool_result", "tool_call_id": "s1", "output": output}])
    with pytest.warns(UserWarning, match="a file, an image in tools' results"):
        assert turns_from_messages([message])[0]["content"] == (
            f'{{"charts": ["{IMAGE}"], "rows": 3, "raw": "{FILE}", "when": ["now"]}}'
        )


def test_artifacts_of_tools_are_left_out() -> None:
    message = ToolMessage("3 rows", tool_call_id="c1", artifact={"image": PNG})
    assert turns_from_messages([message]) == [{"role": "tool", "content": "3 rows", "tool_call_id": "c1"}]


# ---- in people's messages


@pytest.mark.parametrize("kind", [HumanMessage, SystemMessage])
@pytest.mark.parametrize(
    "block",
    [
        *SAY_NOTHING,
        {"text": "hi"},
        {"toolResult": {"toolUseId": "c2", "content": []}},
        {"type": "function_response", "name": "f", "response": {}},
        {"type": "custom_tool_call", "name": "f", "input": "x"},
        {"type": "cache_point"},
        {"type": "text-plain", "base64": "aGk="},
        {"type": "document", "source": {"type": "text", "data": "hi"}},
        {"type": "text", "text": 5},
        {"type": "text", "text": ["hi"]},
        {"type": "text", "text": {"value": "hi"}},
        {5: "numbers", "and": "words"},
    ],
    ids=str,
)
def test_blocks_of_people_that_cannot_be_read_are_refused(kind: Any, block: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        turns_from_messages([kind.model_construct(content=[SUNNY, block])])


# ---- any content

KEYS = st.sampled_from(
    [
        *(
            "type",
            "text",
            "content",
            "source",
            "value",
            "input",
            "args",
            "arguments",
            "name",
            "id",
            "call_id",
            "output",
        ),
        *("data", "mime_type", "thought", "summary", "reasoning", "toolUse", "toolResult", "image", "json", "resource"),
    ]
)
KINDS = st.sampled_from(
    [
        *("text", "refusal", "text-plain", "tool_use", "tool_result", "function_call", "custom_tool_call", "reasoning"),
        *("thinking", "server_tool_call", "server_tool_result", "invalid_tool_call", "non_standard", "json", "image"),
        *("document", "resource", "search_result", "citation", "function_response", "hologram"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=3) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BLOCKS = st.builds(
    lambda block, kind: block | ({"type": kind} if kind else {}),
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.none() | KINDS,
)


@pytest.mark.filterwarnings("ignore:Petals serves models of text only")
@given(content=st.lists(st.text(max_size=4) | BLOCKS, max_size=4))
def test_no_block_of_a_model_or_a_tool_raises(content: list[Any]) -> None:
    messages = [
        AIMessage.model_construct(content=content),
        ToolMessage.model_construct(content=content, tool_call_id="c"),
    ]
    for turn in turns_from_messages(messages):
        assert isinstance(turn["content"], str)
        assert isinstance(turn.get("reasoning_content", ""), str)
        for call in turn.get("tool_calls", []):
            assert isinstance(call["function"]["name"], str)
            assert isinstance(call["function"]["arguments"], dict)


@pytest.mark.filterwarnings("ignore:Petals serves models of text only")
@given(content=st.lists(st.text(max_size=4) | BLOCKS, max_size=4))
def test_what_a_person_wrote_is_read_or_refused(content: list[Any]) -> None:
    try:
        found = turns_from_messages([HumanMessage.model_construct(content=content)])
    except InvalidRequestError:
        return
    assert all(isinstance(turn["content"], str) for turn in found)


def test_a_wrapper_that_contains_itself_is_opened_a_limited_number_of_times() -> None:
    block: dict[str, Any] = {"type": "non_standard"}
    block["value"] = block
    assert inside(*opened(block)) == []


def test_text_of_a_message_inside_a_message_is_kept() -> None:
    inner = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "inner"}]}
    assert [turn["content"] for turn in turns_from_messages([AIMessage([inner])])] == ["inner"]
