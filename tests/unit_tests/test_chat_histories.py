"""An answer has the same tokens in the next prompt, so that sessions continue also after tool calls."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import mistral_template
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from saying_model import SayingModel

from langchain_petals import ChatPetals
from langchain_petals.chat.response_format import ResponseFormat
from langchain_petals.errors import InvalidRequestError

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
# like the one of Llama 3.1: an answer is a call or a text
CALLS_ALONE = (
    "{{ tools | tojson }}\n{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if 'tool_calls' in m %}{{ '{\"name\": \"' + m.tool_calls[0].function.name + '\", \"parameters\": ' }}"
    "{{ m.tool_calls[0].function.arguments | tojson + '}' }}{% else %}{{ m.content | trim }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def note(text: str) -> str:
    """Write a text down."""
    return text


def pay(amount: float) -> str:
    """Pay an amount."""
    return f"{amount} paid"


@pytest.fixture
def saying(byte_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Any]:
    """Return a factory of chat models that can call `note` and say a text."""

    def make(text: str, *, own_template: Any = None, response_format: Any = None, **fields: Any) -> Any:
        tokenizer = copy.deepcopy(byte_tokenizer)
        tokenizer.chat_template = own_template
        own = {"client": SayingModel(tokenizer, text), "tokenizer": tokenizer, "temperature": 0, "max_tokens": 200}
        return ChatPetals(model="saying", **own | fields).bind_tools([note, pay], response_format=response_format)

    return make


def asked_and_told(chat: Any) -> tuple[AIMessage, int]:
    """Return an answer with a call, and how many tokens of its session the next prompt does not begin with."""
    answer = chat.invoke("go")
    results = [ToolMessage("ok", tool_call_id=call["id"], name=call["name"]) for call in answer.tool_calls]
    return answer, lost_in(chat, [HumanMessage("go"), answer, *results])


def lost_in(chat: Any, conversation: list[Any]) -> int:
    """Return the number of tokens in the idle session that the next prompt does not begin with."""
    held = held_by(chat)
    reused: int = chat.invoke(conversation).usage_metadata["input_token_details"]["cache_read"]
    return held - reused


def held_by(chat: Any) -> int:
    """Return the number of tokens in the only idle session."""
    [session] = chat.bound._get_engine().pool._idle
    position: int = session.position
    return position


def test_the_template_for_tools_determines_the_tool_format(saying: Callable[..., Any]) -> None:
    answer, lost = asked_and_told(saying(MISTRAL_CALL, own_template={"default": PLAIN, "tool_use": MISTRALS}))
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("note", {"text": "a"})]
    assert not lost


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
    assert not lost


def test_the_next_prompt_goes_on_from_a_call_with_a_marker_beside_a_schema(saying: Callable[..., Any]) -> None:
    chat = saying(f"<|python_tag|>{CALL}", chat_template=LLAMAS, response_format={"type": "json_object"})
    answer, lost = asked_and_told(chat)
    assert len(answer.tool_calls) == 1
    assert not lost


# ---- where the template spells a call in another way than the model


def pays(amount: str) -> str:
    return f'<tool_call>\n{{"name": "pay", "arguments": {{"amount": {amount}}}}}\n</tool_call>'


@pytest.mark.parametrize("amount", ["12.50", "2.0", "-0", "-0.0", "0.00001", "1e5", "1E+2", "1e99", "3"])
def test_the_next_prompt_goes_on_from_a_number_as_it_was_written(saying: Callable[..., Any], amount: str) -> None:
    answer, lost = asked_and_told(saying(pays(amount), chat_template="chatml"))
    assert [call["args"] for call in answer.tool_calls] == [{"amount": float(amount)}]
    assert not lost


@pytest.mark.parametrize(
    ("arguments", "same"),
    [
        ({"amount": 12.5}, True),
        ({"amount": 12.51}, False),
        ({"amount": 12.5, "tip": 1}, False),
        ({"amount": "12.50"}, False),
    ],
)
def test_a_prompt_contains_changed_arguments(saying: Callable[..., Any], arguments: Any, *, same: bool) -> None:
    chat = saying(pays("12.50"), chat_template="chatml")
    answer = chat.invoke("go")
    call = answer.tool_calls[0] | {"args": arguments}
    told = [HumanMessage("go"), AIMessage("", tool_calls=[call]), ToolMessage("ok", tool_call_id=call["id"])]
    assert (not lost_in(chat, told)) == same
    prompt = "".join(segment.text for segment in chat.bound._prompt(told, ResponseFormat()).rendered)
    assert f'"arguments": {json.dumps(arguments)}' in prompt


@pytest.mark.parametrize("stored", [False, True])
def test_the_next_prompt_goes_on_from_a_streamed_or_stored_answer(saying: Callable[..., Any], *, stored: bool) -> None:
    chat = saying(pays("12.50"), chat_template="chatml")
    first, *chunks = chat.stream("go")
    whole: AIMessage = sum(chunks, first)
    kept = AIMessage("", tool_calls=json.loads(json.dumps(whole.tool_calls))) if stored else whole
    result = ToolMessage("ok", tool_call_id=kept.tool_calls[0]["id"])
    assert not lost_in(chat, [HumanMessage("go"), kept, result])


@pytest.mark.parametrize(
    ("said", "template"),
    [
        (f"<|python_tag|>{CALL}", LLAMAS),  # the template leaves the tag out
        ('{"type": "function", "name": "note", "parameters": {"text": "a"}}', CALLS_ALONE),
        (f'{MISTRAL_CALL[:-1]}, {{"name": "pay", "arguments": {{"amount": 1.0}}}}]', mistral_template.SOURCE),
        (MISTRAL_CALL, mistral_template.SOURCE.replace("[TOOL_CALLS] [", "[TOOL_CALLS][")),  # as later ones
        (MISTRAL_CALL, mistral_template.SOURCE),
        (f"Hm. {MISTRAL_CALL}", mistral_template.SOURCE),
    ],
)
def test_the_next_prompt_goes_on_from_a_call_that_the_template_spells_differently(
    saying: Callable[..., Any], said: str, template: str
) -> None:
    answer, lost = asked_and_told(saying(said, chat_template=template))
    assert answer.tool_calls[0]["name"] == "note"
    assert not lost


@pytest.mark.parametrize("system", ["", "Be kind."])
def test_every_step_of_an_agent_goes_on_from_the_one_before(saying: Callable[..., Any], system: str) -> None:
    chat = saying(f"Hm. {MISTRAL_CALL[:-1]}, {MISTRAL_CALL[14:]}", chat_template=mistral_template.SOURCE)
    foreign = {"name": "note", "args": {"text": "b"}, "id": "call_1"}  # of another provider
    conversation = [
        *([SystemMessage(system)] if system else []),
        HumanMessage("go"),
        AIMessage("", tool_calls=[foreign]),
        ToolMessage("ok", tool_call_id="call_1"),
    ]
    held = 0
    for _ in range(3):
        answer = chat.invoke(conversation)
        usage = answer.usage_metadata
        assert len(answer.tool_calls) == 2
        assert usage["input_token_details"]["cache_read"] == held
        held = held_by(chat)
        results = [ToolMessage("ok", tool_call_id=call["id"]) for call in answer.tool_calls]
        conversation += [answer, *results]


KEEPS_REASONING = (
    "{{ tools | tojson }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_reasoning_is_in_later_prompts_only_where_the_template_shows_it(saying: Callable[..., Any]) -> None:
    said = f"<think>\namount\n</think>\n\n{pays('12.50')}"  # what it thinks is in the call, too
    answer, lost = asked_and_told(saying(said, chat_template=KEEPS_REASONING))
    assert answer.additional_kwargs["reasoning_content"].strip() == "amount"
    assert not lost
    chat = saying(said, chat_template=KEEPS_REASONING.replace("m.reasoning_content", "m.nothing"))
    assert asked_and_told(chat)[1] > 40


# ---- blocks of other providers

PICTURE = {"type": "image", "base64": "AA==", "mime_type": "image/png"}


def test_a_thread_with_images_and_other_providers_blocks_goes_on(saying: Callable[..., Any]) -> None:
    chat = saying("A cat.", chat_template="chatml")
    history = [
        HumanMessage("What is on it?"),
        AIMessage([{"type": "web_search_call", "id": "ws_1"}, {"type": "text", "text": "I will look."}]),
        AIMessage("", tool_calls=[{"name": "note", "args": {"text": "a"}, "id": "c1"}]),
        ToolMessage([{"type": "text", "text": "Here:"}, PICTURE], tool_call_id="c1"),
    ]
    with pytest.warns(UserWarning, match="leaves out") as warned:
        answer = chat.invoke(history)
    assert len(warned) == 1
    assert answer.content == "A cat."
    with pytest.warns(UserWarning, match="leaves out") as warned_again:
        assert chat.invoke([*history, answer, HumanMessage("Sure?")]).content == "A cat."
    assert [str(each.message) for each in warned_again] == [str(each.message) for each in warned]


def test_an_image_of_a_person_is_refused(saying: Callable[..., Any]) -> None:
    with pytest.raises(InvalidRequestError, match="models of text only"):
        saying("A cat.", chat_template="chatml").invoke([HumanMessage([PICTURE])])
