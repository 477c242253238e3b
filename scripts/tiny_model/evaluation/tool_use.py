"""Greedy answers of the tiny model about tools and JSON objects, counted per skill."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiny_model.data.words import Draw
from tiny_model.evaluation.handwritten import HANDWRITTEN
from tiny_model.evaluation.skills import greedy
from tiny_model.evaluation.tool_questions import ANSWERS, CALLS, CALLS_IN_NEW_WORDS, CALLS_IN_SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from tiny_model.evaluation.handwritten import Asked
    from tiny_model.evaluation.tool_questions import Case

    Count = tuple[int, int]
    """The numbers of right answers and of all answers."""


@dataclass(frozen=True)
class ToolScores:
    """The model's right answers.

    Attributes:
        calls: for each kind of call of the only tool, by its own decision and where the call was forced.
        answers: for each other skill.
        handwritten: questions with the model's answer, and whether that is right; then whether the forced one is.
    """

    calls: dict[str, tuple[Count, Count]]
    answers: dict[str, Count]
    handwritten: list[tuple[Asked, str, bool, bool]]

    @property
    def decided(self) -> Count:
        """All calls of the only tool by the model's own decision."""
        return _sum([decided for decided, _ in self.calls.values()])

    @property
    def forced(self) -> Count:
        """All forced calls of the only tool."""
        return _sum([forced for _, forced in self.calls.values()])


def _sum(counts: Sequence[Count]) -> Count:
    return sum(right for right, _ in counts), sum(cases for _, cases in counts)


def evaluate_tools(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, *, cases: int, seed: int = 7
) -> ToolScores:
    """Ask held-back cases of each skill and the handwritten ones; an answer counts if it is exactly right.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        cases: cases of each skill.
        seed: of the cases.
    """

    def score(drawn: Sequence[Case]) -> Count:
        limit = max(len(tokenizer(case.answer).input_ids) for case in drawn) + 2
        answers = greedy(model, tokenizer, [case.prompt for case in drawn], limit)
        return sum(answer == case.answer for answer, case in zip(answers, drawn, strict=True)), len(drawn)

    def draw(skill: str, case: int) -> Draw:
        new_wordings = skill in CALLS_IN_NEW_WORDS
        return Draw(random.Random(f"{seed}/{skill}/{case}"), held_back=True, new_wordings=new_wordings)

    calls = {**CALLS, **CALLS_IN_SCRIPTS, **CALLS_IN_NEW_WORDS}
    drawn = {skill: [make(draw(skill, case)) for case in range(cases)] for skill, make in {**calls, **ANSWERS}.items()}
    scores = {skill: (score(drawn[skill]), score([case.forced for case in drawn[skill]])) for skill in calls}
    return ToolScores(scores, {skill: score(drawn[skill]) for skill in ANSWERS}, _handwritten(model, tokenizer))


def _handwritten(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[tuple[Asked, str, bool, bool]]:
    asked = [(each, each.case) for each in HANDWRITTEN]
    answers = greedy(model, tokenizer, [case.prompt for _, case in asked], 120)
    forced = greedy(model, tokenizer, [case.forced.prompt for _, case in asked], 120)
    return [
        (
            each,
            answer,
            answer == case.answer if each.name else not answer.startswith("<tool_call>"),
            bool(each.name) and after == case.forced.answer,
        )
        for (each, case), answer, after in zip(asked, answers, forced, strict=True)
    ]
