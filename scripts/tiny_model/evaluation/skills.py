"""Greedy answers of the tiny model to held-back questions, counted per skill and style of prompt."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch

from tiny_model.data.styles import END_OF_TEXT, TURN_END, written
from tiny_model.data.words import Draw
from tiny_model.evaluation.questions import EVALUATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    Scores = dict[str, dict[str, tuple[int, int]]]

ROWS = 64
SCORED = ("chatml", "plain")


@torch.no_grad()
def greedy(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], limit: int = 520
) -> list[str]:
    """Continue prompts greedily, up to the end token.

    Args:
        model: the model.
        tokenizer: its tokenizer, which pads on the left.
        prompts: texts to continue.
        limit: most new tokens (bytes).

    Returns:
        One continuation a prompt, in order, without the end token.
    """
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    for start in range(0, len(order), ROWS):
        chosen = order[start : start + ROWS]
        batch = tokenizer([prompts[index] for index in chosen], return_tensors="pt", padding=True)
        ended = [tokenizer.convert_tokens_to_ids(token) for token in (TURN_END, END_OF_TEXT)]
        ids = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=limit,
            eos_token_id=ended,
            pad_token_id=ended[1],
        )
        for index, row in zip(chosen, ids[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            length = next((at for at, token in enumerate(row) if token in ended), len(row))
            answers[index] = tokenizer.decode(row[:length], clean_up_tokenization_spaces=False)
    return answers


def evaluation_cases(cases: int, seed: int = 7) -> list[tuple[str, str, str, str]]:
    """Return (skill, `chatml` or `plain`, prompt, expected answer) of held-back conversations.

    A plain prompt of a single turn is `Human: ...` with `AI:` in half of the cases and the bare question in
    the other half; one of several turns is always the dialogue.
    """
    drawn = []
    for skill, make in EVALUATIONS.items():
        for style in SCORED:
            for case in range(cases):
                draw = Draw(random.Random(f"{seed}/{skill}/{case}"), held_back=True)
                conversation = make(draw)
                bare = len(conversation.turns) == 1 and not conversation.system and case % 2
                plain = "bare" if bare else "dialogue"
                *before, (answer, _) = written(conversation, style if style == "chatml" else plain)
                label = "\nAI:" if style != "chatml" and not bare else ""
                prompt = "".join(text for text, _ in before) + label
                drawn.append((skill, style, prompt, answer.removeprefix(label).removesuffix(TURN_END)))
    return drawn


def evaluate(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    cases: int,
    failures: list[tuple[str, str, str]] | None = None,
) -> Scores:
    """Count the answers that are exactly right.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        cases: conversations for each skill and style.
        failures: filled with (prompt, expected, answer) of wrong answers, if given.

    Returns:
        For each skill and style the right answers and all of them.
    """
    drawn = evaluation_cases(cases)
    limit = max(len(expected.encode()) for *_, expected in drawn) + 2
    answers = greedy(model, tokenizer, [prompt for _, _, prompt, _ in drawn], limit)
    right = {skill: dict.fromkeys(SCORED, 0) for skill in EVALUATIONS}
    for (skill, style, prompt, expected), answer in zip(drawn, answers, strict=True):
        right[skill][style] += answer == expected
        if failures is not None and answer != expected:
            failures.append((prompt, expected, answer))
    return {skill: {style: (hits, cases) for style, hits in styles.items()} for skill, styles in right.items()}


EXCHANGES: tuple[tuple[str, ...], ...] = (
    ("Who are you?",),
    ("My name is Zorvan.", "What is 3 + 4?", "What is my name?"),
    ("Repeat after me: Seven blue Petals, 42 servers!",),
    ("Repeat after me: 花 🌸 Привет",),
    ('Repeat after me: {"city": "Paris", "days": 7}',),
    ("Spell swarm.",),
    ("Count from 3 to 9.",),
    ("What is the capital of France?",),
    ("What is the capital of Zorbia?",),
    ("Tell me a story.",),
)


def sample_exchanges(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[list[tuple[str, str]]]:
    """Return conversations of `EXCHANGES` as (question, the model's own answer) pairs."""
    talks = []
    for questions in EXCHANGES:
        messages: list[dict[str, str]] = []
        for question in questions:
            messages.append({"role": "user", "content": question})
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            messages.append({"role": "assistant", "content": greedy(model, tokenizer, [prompt])[0]})
        contents = [message["content"] for message in messages]
        talks.append(list(zip(contents[::2], contents[1::2], strict=True)))
    return talks
