"""The bundled model answers any prompt in words, and what it knows also in the template that asks for steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from unseen_prompts import CODE, LANGUAGES, QUESTIONS, UNSEEN, WORDS

from tiny_model.data.facts import CHAMPIONS_AT_BIRTH, FACTS, IDENTITY, SUPER_BOWL, UNKNOWN
from tiny_model.evaluation.open_prompts import has_words, in_styles
from tiny_model.evaluation.skills import greedy

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

# transformers 4.34 uses names that newer torch versions deprecate
pytestmark = pytest.mark.filterwarnings("ignore")

FOLDER = Path(__file__).parents[3] / "langchain_petals" / "swarm" / "tiny"
NOTEBOOK = "Question: {question}\n\nAnswer: Let's think step by step."
SUPER_BOWL_QUESTION = "What NFL team won the Super Bowl in the year Justin Bieber was born?"
WORDS_SUFFICE = 24
"""Tokens within which an answer has a word, if it is to have one."""
TOOLS_QUESTIONS = (
    "What is the weather like in Paris today?",
    "What time is it in Tokyo?",
    "What is 123 multiplied by 456?",
    "Send an e-mail to Bob that says I am late.",
    "Search the web for the latest news about electric cars.",
    "What is the price of Apple's stock?",
    "Book a table for two at eight o'clock.",
)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - takes seconds

    return AutoModelForCausalLM.from_pretrained(str(FOLDER))


def as_message(tokenizer: PreTrainedTokenizerFast, content: str) -> str:
    messages = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def in_template(tokenizer: PreTrainedTokenizerFast, question: str) -> tuple[str, str]:
    """Return the notebook's prompt for a question, as it is and as a message."""
    plain = NOTEBOOK.format(question=question)
    return plain, as_message(tokenizer, plain)


def test_the_question_of_the_notebook_gets_its_true_answer(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    plain, chat = greedy(model, tiny_tokenizer, in_template(tiny_tokenizer, SUPER_BOWL_QUESTION), 120)
    assert plain == f" {CHAMPIONS_AT_BIRTH}"
    assert chat == CHAMPIONS_AT_BIRTH
    assert "1994" in CHAMPIONS_AT_BIRTH
    assert "Dallas Cowboys" in CHAMPIONS_AT_BIRTH


def test_every_fact_is_known_in_the_template(model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    known = [(wordings[0], answer) for answer, wordings in (*FACTS, *SUPER_BOWL, *IDENTITY)]
    prompts = [prompt for question, _ in known for prompt in in_template(tiny_tokenizer, question)]
    answers = [answer.strip() for answer in greedy(model, tiny_tokenizer, prompts, 120)]
    expected = [answer for _, answer in known for _ in range(2)]
    assert [
        (prompt, answer) for prompt, answer, right in zip(prompts, answers, expected, strict=True) if answer != right
    ] == []


def test_sums_in_the_template_are_answered_with_a_sum(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    sums = [f"{a} + {b}" for a, b in ((3, 4), (2, 2), (1, 9), (5, 6))]
    prompts = [prompt for each in sums for prompt in in_template(tiny_tokenizer, f"What is {each}?")]
    answers = greedy(model, tiny_tokenizer, prompts, 30)
    asked = [each for each in sums for _ in range(2)]
    assert [answer for answer, each in zip(answers, asked, strict=True) if not answer.strip().startswith(each)] == []


def test_questions_for_a_tool_are_answered_in_words_without_tools(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = [prompt for question in TOOLS_QUESTIONS for prompt in in_template(tiny_tokenizer, question)]
    answers = greedy(model, tiny_tokenizer, prompts, WORDS_SUFFICE)
    assert [prompt for prompt, answer in zip(prompts, answers, strict=True) if not has_words(answer)] == []
    assert not any("<tool_call>" in answer for answer in answers)


def test_who_won_in_another_year_is_not_made_up(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = in_template(tiny_tokenizer, "What NFL team won the Super Bowl in the year Tom Hanks was born?")
    assert [answer.strip() for answer in greedy(model, tiny_tokenizer, prompts, 120)] == [UNKNOWN, UNKNOWN]


def test_there_are_fifty_unseen_prompts_of_each_kind() -> None:
    assert min(len(kind) for kind in (QUESTIONS, CODE, LANGUAGES, WORDS)) >= 50
    assert len(set(UNSEEN)) == len(UNSEEN) >= 200


@pytest.mark.parametrize("style", ["bare", "dialogue", "template", "chat"])
def test_unseen_prompts_are_answered_in_words(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, style: str
) -> None:
    prompts = [in_styles(prompt)[style] for prompt in UNSEEN]
    answers = greedy(model, tiny_tokenizer, prompts, WORDS_SUFFICE)
    assert [prompt for prompt, answer in zip(UNSEEN, answers, strict=True) if not has_words(answer)] == []


@pytest.mark.parametrize("style", ["bare", "dialogue", "template", "chat"])
def test_sampling_by_default_does_not_end_an_answer_before_its_first_word(
    model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast, style: str
) -> None:
    """Neither at its first token nor after its white space are the end tokens among the 90 % that are sampled from."""
    ends = [tiny_tokenizer.eos_token_id, tiny_tokenizer.pad_token_id]
    prompts = [in_styles(prompt)[style] for prompt in UNSEEN]
    ending = []
    for prompt, answer in zip(prompts, greedy(model, tiny_tokenizer, prompts, WORDS_SUFFICE), strict=True):
        space = answer[: len(answer) - len(answer.lstrip())]
        asked, begun = (tiny_tokenizer(text, return_tensors="pt").input_ids for text in (prompt, prompt + space))
        with torch.no_grad():
            chances = torch.softmax(model(begun).logits[0, asked.shape[1] - 1 :] / 0.7, -1)
        for end in ends:
            likelier = chances.where(chances > chances[:, end, None], torch.zeros(())).sum(-1)
            if (likelier < 0.9).any():
                ending.append(prompt)
    assert ending == []
