"""What a model wrote is written the same way in the next prompt: calls are understood, and servers go on from them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from saying_model import SayingModel

from langchain_petals import ChatPetals

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedTokenizerFast

PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
MISTRALS = "{{ '[TOOL_CALLS] [' if 0 }}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]" + PLAIN
MISTRAL_CALL = '[TOOL_CALLS] [{"name": "note", "arguments": {"text": "a"}}]'

CALL = '{"name": "note", "parameters": {"text": "a"}}'
LLAMAS = "llama-3.1-instruct"
# as the one that Llama 3.1 ships: a call, or what was said
CALLS_ALONE = (
    "{{ tools | tojson }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if 'tool_calls' in m %}{{ '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}"
    "{{ m.tool_calls[0].function.arguments | tojson + '}' }}{% else %}{{ m.content | trim }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def note(text: str) -> str:
    """Write a text down."""
    return text


@pytest.fixture
def saying(byte_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Any]:
    """Return a factory of chat models that can call `note` and say a text."""

    def make(text: str, *, own_template: Any = None, response_format: Any = None, **fields: Any) -> Any:
        tokenizer = copy.deepcopy(byte_tokenizer)
        tokenizer.chat_template = own_template
        own = {"client": SayingModel(tokenizer, text), "tokenizer": tokenizer, "temperature": 0, "max_tokens": 200}
        return ChatPetals(model="saying", **own | fields).bind_tools([note], response_format=response_format)

    return make


def asked_and_told(chat: Any) -> tuple[AIMessage, int]:
    """Return an answer that calls a tool, and how many of its tokens the next prompt cannot go on from."""
    answer = chat.invoke("go")
    results = [ToolMessage("ok", tool_call_id=call["id"], name=call["name"]) for call in answer.tool_calls]
    after = chat.invoke([HumanMessage("go"), answer, *results])
    seen = answer.usage_metadata["input_tokens"] + answer.usage_metadata["output_tokens"]
    return answer, seen - after.usage_metadata["input_token_details"]["cache_read"]


def test_the_template_for_tools_tells_how_calls_are_written(saying: Callable[..., Any]) -> None:
    answer, lost = asked_and_told(saying(MISTRAL_CALL, own_template={"default": PLAIN, "tool_use": MISTRALS}))
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("note", {"text": "a"})]
    assert lost <= 2, "the end token and the one before it were chosen, but never sent"


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        (CALL, {"chat_template": LLAMAS}),
        (f"Let me see.<|python_tag|>{CALL}", {"chat_template": LLAMAS}),
        (f"<|python_tag|>{CALL}", {"chat_template": LLAMAS, "tool_format": "llama-3.1-python-tag"}),
        (f"Hm.<|python_tag|>{CALL}", {"chat_template": LLAMAS, "tool_format": "llama-3.1-python-tag"}),
        (f"Hm. {MISTRAL_CALL}", {"chat_template": LLAMAS, "tool_format": "mistral"}),
        (CALL, {"chat_template": CALLS_ALONE}),
        (f"Let me see.<|python_tag|>{CALL}", {"chat_template": CALLS_ALONE}),
        (f"<|python_tag|>{CALL}", {"chat_template": CALLS_ALONE, "tool_format": "llama-3.1-python-tag"}),
        (CALL, {"tool_format": "llama-3.1"}),
        (f"Let me see.<|python_tag|>{CALL}", {"tool_format": "llama-3.1"}),
        (f"<|python_tag|>{CALL}", {"tool_format": "llama-3.1-python-tag"}),
        (f"Hm. {MISTRAL_CALL}", {"tool_format": "mistral"}),
        (f"Hm.\n<tool_call>\n{CALL.replace('parameters', 'arguments')}\n</tool_call>", {}),
    ],
)
def test_the_next_prompt_goes_on_from_a_call(saying: Callable[..., Any], said: str, fields: dict[str, Any]) -> None:
    answer, lost = asked_and_told(saying(said, **{"chat_template": "chatml"} | fields))
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("note", {"text": "a"})]
    assert lost <= 2


def test_the_next_prompt_goes_on_from_a_call_that_a_marker_tells_from_an_object(saying: Callable[..., Any]) -> None:
    chat = saying(f"<|python_tag|>{CALL}", chat_template=LLAMAS, response_format={"type": "json_object"})
    answer, lost = asked_and_told(chat)
    assert len(answer.tool_calls) == 1
    assert lost <= 2
