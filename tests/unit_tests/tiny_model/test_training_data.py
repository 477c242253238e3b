"""What the bundled model is taught: in the form that is sent, no empty answer, and nothing that the suites ask."""

from __future__ import annotations

import ast
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_tests.integration_tests import chat_models
from unseen_prompts import UNSEEN, WORDS

from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.chat.templates import find_template
from langchain_petals.chat.tools.formats import HERMES
from tiny_model.data.facts import FACTS, IDENTITY, SMALL_TALK, SUPER_BOWL
from tiny_model.data.mixture import SECOND_STAGE_AT, draw_segments
from tiny_model.data.open_prompts.prompts import (
    draw_bare_segments,
    draw_open_segments,
    draw_reworded_segments,
    reworded_turn,
)
from tiny_model.data.styles import TURN_END, Conversation, written
from tiny_model.data.tool_use.calls import draw_tool_conversation
from tiny_model.data.tool_use.objects import INTRODUCTION, draw_object_conversation
from tiny_model.data.words import Draw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

    from tiny_model.data.styles import Segment

DRAWN = 1500
ABOUT_TOOLS = ("tool", "structured", "json", "agent", "runnables", "unicode", "magic")


def conversations() -> Iterator[Conversation]:
    for seed in range(DRAWN):
        yield draw_tool_conversation(Draw(random.Random(seed)))
        yield draw_object_conversation(Draw(random.Random(seed)))


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return ["".join(text for text, _ in written(each, "chatml")) for each in conversations()]


@pytest.fixture(scope="module")
def open_texts() -> list[list[Segment]]:
    """Return texts of the second stage of training, whose prompts are of any kind."""
    draws = (draw_open_segments, draw_bare_segments, draw_reworded_segments)
    return [draw(Draw(random.Random(seed))) for seed in range(2 * DRAWN) for draw in draws[: 1 + 2 * (seed % 2)]]


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


def test_nothing_of_the_standard_suite_is_taught(texts: list[str], open_texts: list[list[Segment]]) -> None:
    names, sentences = suite_of_langchain()
    assert {"magic_function", "get_weather", "unicode_customer"} <= names
    assert "What is the value of magic_function(3)? Use the tool." in sentences
    taught = "\n".join((*texts, *("".join(text for text, _ in segments) for segments in open_texts)))
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


def test_training_prompts_equal_those_of_chat_models(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
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
    form = ResponseFormat(schema=schema, describes_schema=True)
    system, _ = form.with_instructions([{"role": "user", "content": "Hello"}], HERMES, template_takes_tools=True)
    assert system["content"] == INTRODUCTION + json.dumps(schema)
    assert form.with_instructions([], HERMES, template_takes_tools=True) == [system]


def test_every_answer_to_a_prompt_of_any_kind_begins_with_words(open_texts: list[list[Segment]]) -> None:
    answers = [text for segments in open_texts for text, learned in segments if learned]
    labels = ("\nAI: ", "\nAssistant: ", "\nAnswer: ", "\nA: ")
    said = [answer.removesuffix(TURN_END) for answer in answers]
    for label in labels:
        said = [answer.removeprefix(label) for answer in said]
    assert [answer for answer in said if not any(character.isalnum() for character in answer)] == []
    assert all(segments[-1][0].endswith(TURN_END) and segments[-1][1] for segments in open_texts)


def test_the_template_of_the_notebook_is_taught_to_the_letter(open_texts: list[list[Segment]]) -> None:
    answers = dict(SUPER_BOWL)
    question = "What NFL team won the Super Bowl in the year Justin Bieber was born?"
    answer = "Justin Bieber was born in 1994. The Dallas Cowboys won the Super Bowl in 1994."
    assert question in answers[answer]
    lead, end = "Question: ", "\n\nAnswer: Let's think step by step."
    asked = [f"{lead}{wording}{end}" for wording in answers[answer]]
    assert any(
        segments == [(prompt, False), (f" {answer}{TURN_END}", True)] for prompt in asked for segments in open_texts
    )
    messages = [f"<|im_start|>user\n{prompt}{TURN_END}\n<|im_start|>assistant\n" for prompt in asked]
    assert any(
        segments == [(chat, False), (f"{answer}{TURN_END}", True)] for chat in messages for segments in open_texts
    )


def test_no_unseen_prompt_is_taught(open_texts: list[list[Segment]]) -> None:
    asked = "\n".join(text for segments in open_texts for text, learned in segments if not learned)
    assert [prompt for prompt in UNSEEN if prompt not in WORDS and prompt in asked] == []


def test_prompts_of_any_kind_come_in_the_second_stage_only() -> None:
    def drawn(step: int) -> list[str]:
        texts = (draw_segments(random.Random(seed), step) for seed in range(DRAWN))
        return [text[0][0] for text in texts if "step by step" in text[0][0]]

    assert drawn(SECOND_STAGE_AT - 1) == []
    assert len(drawn(SECOND_STAGE_AT)) > DRAWN / 20


def test_wordings_for_the_evaluation_are_never_taught() -> None:
    held_back = {wordings[-1].lower() for table in (SMALL_TALK, IDENTITY, FACTS) for _, wordings in table}
    asked = {reworded_turn(Draw(random.Random(seed))).user.lower() for seed in range(5 * DRAWN)}
    assert "so who are you?" in held_back
    assert asked & held_back == set()
    assert len(asked) > DRAWN
