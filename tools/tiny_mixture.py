"""The mixture of training data: conversations, conversations with tools, and JSON objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_calls import draw_tool_conversation
from tiny_conversations import draw_conversation
from tiny_objects import draw_object_conversation
from tiny_styles import SPEAKERS, written
from tiny_words import Draw

if TYPE_CHECKING:
    import random

    from tiny_styles import Segment

FULL_SHARES_AT = 600
LESSONS_AT = (0, 2600, 4300)
"""Steps from which questions for tools are those of lesson 0, `VARIED` and `CHOOSING`."""
TOOLS = (0.48, 0.48, 0.57)
"""Shares of conversations with tools in each lesson."""
OBJECTS = 0.10
"""Share of those with JSON objects. Both rise in a straight line up to step `FULL_SHARES_AT`, since copying is learned
from short texts first."""


def draw_segments(rng: random.Random, step: int) -> list[Segment]:
    """Draw one training conversation and write it.

    Args:
        rng: the source of randomness.
        step: the training step, which sets the shares.

    Returns:
        Pieces of text, each with True where the model has to produce it.
    """
    grown = min(1.0, 0.25 + 0.75 * step / FULL_SHARES_AT)
    lesson = sum(step >= begins for begins in LESSONS_AT) - 1
    kind = rng.random()
    if kind < TOOLS[lesson] * grown:
        return written(draw_tool_conversation(Draw(rng, lesson=lesson)), "chatml")
    if kind < (TOOLS[lesson] + OBJECTS) * grown:
        return written(draw_object_conversation(Draw(rng)), "chatml")
    conversation, style = draw_conversation(rng, step)
    return written(conversation, style, rng.choices(SPEAKERS, (80, 8, 6, 6))[0])
