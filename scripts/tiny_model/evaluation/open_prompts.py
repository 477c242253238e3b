"""Greedy answers of the tiny model in the step-by-step template, and to prompts outside of its training data."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_model.data.conversations import Memory, add, fact, from_table, identity
from tiny_model.data.facts import FACTS, SUPER_BOWL
from tiny_model.data.open_prompts.prompts import STEPS, open_turn, tool_question
from tiny_model.data.styles import Conversation, Turn, written
from tiny_model.data.words import Draw
from tiny_model.evaluation.skills import greedy

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    Count = tuple[int, int]
    """The numbers of right answers and of all answers."""


@dataclass(frozen=True)
class OpenScores:
    """The model's answers to prompts that the first stage of its training does not have.

    Attributes:
        in_template: for each row the answers that are right to the letter, as a message and as a plain prompt.
        worded: for each way of asking the answers that have words.
    """

    in_template: dict[str, tuple[Count, Count]]
    worded: dict[str, Count]


IN_TEMPLATE: dict[str, Callable[[Draw], Turn]] = {
    "the Super Bowl and its singer": lambda draw: from_table(Draw(draw.rng), SUPER_BOWL),
    "the same, held-back wording": lambda draw: from_table(draw, SUPER_BOWL),
    "facts": lambda draw: from_table(Draw(draw.rng), FACTS),
    "facts, held-back wording": lambda draw: fact(draw, Memory()),
    "who it is, Petals, LangChain": lambda draw: identity(Draw(draw.rng), Memory()),
    "one-digit sums": lambda draw: add(draw, Memory()),
    "what a tool would know (`I do not know.`)": tool_question,
}


def has_words(answer: str) -> bool:
    """Whether an answer has a letter or a digit."""
    return any(character.isalnum() for character in answer)


def in_styles(prompt: str) -> dict[str, str]:
    """Return a prompt as it is, as a dialogue, in the template, and as a message."""
    *before, _ = written(Conversation((Turn(prompt, ""),)), "chatml")
    return {
        "bare": prompt,
        "dialogue": f"Human: {prompt}\nAI:",
        "template": STEPS.format(question=prompt),
        "chat": "".join(text for text, _ in before),
    }


def evaluate_open(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, cases: int, seed: int = 7
) -> OpenScores:
    """Count right answers in the template, and answers with words to prompts of any kind.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        cases: questions of each row in the template; ten times as many prompts of any kind.
        seed: of the cases.
    """
    rows: dict[str, tuple[Count, Count]] = {}
    for row, make in IN_TEMPLATE.items():
        turns = [make(Draw(random.Random(f"{seed}/{row}/{case}"), held_back=True)) for case in range(cases)]
        asked = [STEPS.format(question=turn.user) for turn in turns]
        limit = max(len(turn.answer.encode()) for turn in turns) + 4
        chat = greedy(model, tokenizer, [in_styles(each)["chat"] for each in asked], limit)
        plain = greedy(model, tokenizer, asked, limit)
        rows[row] = (
            (sum(answer == turn.answer for answer, turn in zip(chat, turns, strict=True)), cases),
            (sum(answer == f" {turn.answer}" for answer, turn in zip(plain, turns, strict=True)), cases),
        )
    drawn = [open_turn(Draw(random.Random(f"{seed}/open/{case}"), held_back=True)).user for case in range(10 * cases)]
    styles = [in_styles(prompt) for prompt in drawn if prompt]
    worded = {}
    for style in styles[0]:
        answers = greedy(model, tokenizer, [each[style] for each in styles], 24)
        worded[style] = (sum(has_words(answer) for answer in answers), len(answers))
    return OpenScores(rows, worded)
