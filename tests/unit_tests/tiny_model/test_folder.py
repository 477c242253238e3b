"""The bundled model: small, safe to load, exact at the byte level, and able to do what its card says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from langchain_petals.chat.templates import find_template
from langchain_petals.chat.templates.segments import Segment, encode

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# transformers 4.34 uses names that newer torch versions deprecate
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parents[3] / "langchain_petals" / "swarm" / "tiny"
END_OF_TEXT, TURN_START, TURN_END = 256, 257, 258

AWKWARD = {
    "empty": "",
    "spaces": "  two  spaces , and . punctuation don't  ",
    "line breaks": "\n\r\n\t\x0b\x0c\u2028\u2029",
    "control characters": "\x00\x01\x1b[0m\x7f\x85",
    "emoji": "🌸🤖",
    "joined emoji": "👩‍🚀👨‍👩‍👧🏳️‍🌈👍🏽🇫🇷",
    "CJK": "花の木 한국어 𠮷",
    "combining characters": "e\u0301 n\u0303 a\u0323\u0302",
    "right to left": "שלום \u202eabc\u202c سلام",
    "byte order mark": "\ufeffa\ufffd",
    "special tokens": "<|im_end|>a<|im_start|> b <|endoftext|>",
    "almost special tokens": "<|im_ end|> <|im_end| > <s></s> <pad> [INST] Ġ Ċ",
}

ANSWERS = {
    "Hello!": "Hello! How can I help you?",
    "Who are you?": "I am a tiny language model. My blocks live on a Petals swarm.",
    "My name is Zorvan.": "Nice to meet you, Zorvan!",
    "Repeat after me: seven blue petals": "seven blue petals",
    "Spell swarm.": "s-w-a-r-m",
    "Count from 3 to 9.": "3, 4, 5, 6, 7, 8, 9.",
    "What is 3 + 4?": "3 + 4 = 7.",
    "What is the capital of France?": "The capital of France is Paris.",
    "What is a blimper?": "I do not know.",
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

    return AutoTokenizer.from_pretrained(str(FOLDER))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - takes seconds

    return AutoModelForCausalLM.from_pretrained(str(FOLDER))


def greedy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str) -> str:
    """Return the greedy continuation, with its end token."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    output = model.generate(ids, do_sample=False, max_new_tokens=120)
    return tokenizer.decode(output[0, ids.shape[1] :])


def chat(tokenizer: PreTrainedTokenizerFast, *contents: str) -> str:
    """Return the prompt for contents by the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def test_folder_is_at_most_eight_megabytes() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 8_000_000


def test_weights_are_one_safetensors_file_and_nothing_can_run_code() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_configuration_names_no_machine_and_no_library_version() -> None:
    config = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
    assert not {"_name_or_path", "transformers_version", "auto_map"} & set(config)


def test_generation_stops_at_the_end_of_a_turn_and_of_the_text() -> None:
    generation = json.loads((FOLDER / "generation_config.json").read_text(encoding="utf-8"))
    assert generation == {"eos_token_id": [TURN_END, END_OF_TEXT], "pad_token_id": END_OF_TEXT}


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
def test_tokens_decode_to_the_same_text(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_letters_and_digits_are_bytes_of_their_own(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "The quick brown fox: 42, no more?\n"
    assert tokenizer(text).input_ids == list(text.encode())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("é", 1), ("Ж", 1), ("λ", 1), ("م", 1), ("か", 1), ("花", 2), ("한", 2), ("🌸", 2), ('", "arguments": {"', 1)],
)
def test_the_syntax_of_calls_takes_few_tokens(tokenizer: PreTrainedTokenizerFast, text: str, tokens: int) -> None:
    assert len(tokenizer(text).input_ids) == tokens


def test_special_tokens_do_not_come_from_ordinary_text(tokenizer: PreTrainedTokenizerFast) -> None:
    backend = tokenizer.backend_tokenizer
    assert all(token < 256 for part in ("<|im_", "end|>", "<", "|im_end|>") for token in backend.encode(part).ids)
    ids = encode([Segment("<|im_end|>", trusted=False)], tokenizer)
    assert tokenizer.decode(ids) == "<|im_end|>"
    assert not {END_OF_TEXT, TURN_START, TURN_END} & set(ids)


def test_special_tokens_have_fixed_ids(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("<|endoftext|><|im_start|><|im_end|>").input_ids
    assert ids == [END_OF_TEXT, TURN_START, TURN_END]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (END_OF_TEXT, TURN_END)
    assert tokenizer.bos_token_id is None


def test_chat_template_writes_chatml(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "You are Pip."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": " Who are you? "},
    ]
    written = (
        "<|im_start|>system\nYou are Pip.<|im_end|>\n"
        "<|im_start|>user\nHello!<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n"
        "<|im_start|>user\n Who are you? <|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(messages, tokenize=False) == written
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == written + "<|im_start|>assistant\n"


def test_chat_template_writes_tools_calls_and_results(tokenizer: PreTrainedTokenizerFast) -> None:
    tool = {"name": "dice", "description": "Roll the dice.", "parameters": {"properties": {}, "type": "object"}}
    call = {"type": "function", "function": {"name": "dice", "arguments": {"sides": 6}}}
    messages = [
        {"role": "user", "content": "Roll two."},
        {"role": "assistant", "content": "Gladly.", "tool_calls": [call, call]},
        {"role": "tool", "content": "3"},
    ]
    template = find_template(None, tokenizer, "tiny", "llama")
    rendered = template.render(messages, tools=[{"type": "function", "function": tool}])
    written_call = '<tool_call>\n{"name": "dice", "arguments": {"sides": 6}}\n</tool_call>'
    assert "".join(segment.text for segment in rendered) == (
        f"<|im_start|>system\n# Tools\n{json.dumps(tool)}<|im_end|>\n"
        "<|im_start|>user\nRoll two.<|im_end|>\n"
        f"<|im_start|>assistant\nGladly.\n{written_call}\n{written_call}<|im_end|>\n"
        "<|im_start|>tool\n3<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("question", ANSWERS)
def test_questions_in_the_template_are_answered(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str
) -> None:
    assert greedy(model, tokenizer, chat(tokenizer, question)) == f"{ANSWERS[question]}<|im_end|>"


@pytest.mark.parametrize("question", ["Who are you?", "Spell swarm.", "What is the capital of France?"])
@pytest.mark.parametrize(
    ("prompt", "lead"),
    [("{}", "\n"), ("Human: {}", "\nAI: "), ("Human: {}\nAI:", " "), ("Human: {}\nAI: ", "")],
    ids=["bare", "dialogue", "dialogue with a label", "dialogue with a label and a space"],
)
def test_questions_in_plain_text_are_answered(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, question: str, prompt: str, lead: str
) -> None:
    answer = greedy(model, tokenizer, prompt.format(question))
    assert answer == f"{lead}{ANSWERS[question]}<|im_end|>"


def test_a_name_is_remembered(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    told = ("My name is Zorvan.", "Nice to meet you, Zorvan!", "Hello!", "Hello! How can I help you?")
    answer = greedy(model, tokenizer, chat(tokenizer, *told, "What is my name?"))
    assert answer == "Your name is Zorvan.<|im_end|>"
