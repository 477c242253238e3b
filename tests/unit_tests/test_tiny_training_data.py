"""What the bundled model is taught about tools: in the form that ChatPetals sends, and nothing that the suites ask."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_tests.integration_tests import chat_models
from tiny_calls import draw_tool_conversation
from tiny_objects import INTRODUCTION, draw_object_conversation
from tiny_styles import TURN_END, Conversation, written
from tiny_words import Draw

from langchain_petals.chat.answer_form import AnswerForm
from langchain_petals.chat.templates import find_template
from langchain_petals.chat.tool_calls import HERMES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

DRAWN = 1500
ABOUT_TOOLS = ("tool", "structured", "json", "agent", "runnables", "unicode", "magic")


def conversations() -> Iterator[Conversation]:
    for seed in range(DRAWN):
        yield draw_tool_conversation(Draw(random.Random(seed)))
        yield draw_object_conversation(Draw(random.Random(seed)))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return ["".join(text for text, _ in written(each, "chatml")) for each in conversations()]


def suite_of_langchain() -> tuple[set[str], set[str]]:
    """Return the names and the sentences that the standard suite uses in tests of tools and structured output."""
    names: set[str] = set()
    sentences: set[str] = set()
    tree = ast.parse(Path(chat_models.__file__).read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if isinstance(function, ast.ClassDef) and function.name == "ChatModelIntegrationTests":
            continue
        is_tool = any("tool" in ast.unparse(decorator) for decorator in function.decorator_list)
        if is_tool:
            names.add(function.name)
        if not is_tool and not any(word in function.name for word in ABOUT_TOOLS):
            continue
        docstring = ast.get_docstring(function, clean=False)
        for node in ast.walk(function):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value != docstring:
                sentences.add(node.value)
        if is_tool and docstring:
            sentences.add(docstring.splitlines()[0])
    return names, {sentence for sentence in sentences if len(sentence.split()) >= 3 and "`" not in sentence}


def test_nothing_of_the_standard_suite_is_taught(texts: list[str]) -> None:
    names, sentences = suite_of_langchain()
    assert {"magic_function", "get_weather", "unicode_customer"} <= names
    assert "What is the value of magic_function(3)? Use the tool." in sentences
    taught = "\n".join(texts)
    assert [each for each in names | sentences if each in taught] == []
    assert [word for word in ("weather", "magic", "customer", "joke", "punchline") if word in taught] == []


def messages_of(conversation: Conversation) -> list[dict[str, Any]]:
    """Return a conversation as ChatPetals gives it to a template, up to its last question or result."""
    messages: list[dict[str, Any]] = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for turn in conversation.turns:
        messages.append({"role": "user", "content": turn.user})
        for number, (call, result) in enumerate(turn.steps):
            body = json.loads(call.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
            calls = [{"type": "function", "id": f"call_{number}", "function": body}]
            messages += [
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "content": result, "name": body["name"], "tool_call_id": f"call_{number}"},
            ]
        messages.append({"role": "assistant", "content": turn.answer})
    return messages[:-1]


def test_prompts_are_those_that_chat_models_send(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    template = find_template(None, tiny_tokenizer, "tiny", "llama")
    assert template.takes_tools
    for conversation in conversations():
        *prompt, answer = [text for text, _ in written(conversation, "chatml")]
        assert answer == conversation.turns[-1].answer + TURN_END
        tools = [{"type": "function", "function": json.loads(tool)} for tool in conversation.tools]
        rendered = template.render(messages_of(conversation), tools=tools or None)
        assert "".join(segment.text for segment in rendered) == "".join(prompt)


def test_schemas_are_introduced_as_chat_models_do() -> None:
    schema = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    form = AnswerForm(schema=schema, describes_schema=True)
    system, _ = form.introduced([{"role": "user", "content": "Hello"}], HERMES, template_takes_tools=True)
    assert system["content"] == INTRODUCTION + json.dumps(schema)
    assert form.introduced([], HERMES, template_takes_tools=True) == [system]
