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
TOOLS, OBJECTS = 0.58, 0.11
"""Shares of conversations with tools, and of those with JSON objects. They rise in a straight line up to step
`FULL_SHARES_AT`, since copying is learned from short texts first."""


def draw_segments(rng: random.Random, step: int) -> list[Segment]:
    """Draw one training conversation and write it.

    Args:
        rng: the source of randomness.
        step: the training step, which sets the shares.

    Returns:
        Pieces of text, each with True where the model has to produce it.
    """
    grown = min(1.0, 0.25 + 0.75 * step / FULL_SHARES_AT)
    kind = rng.random()
    if kind < TOOLS * grown:
        return written(draw_tool_conversation(Draw(rng)), "chatml")
    if kind < (TOOLS + OBJECTS) * grown:
        return written(draw_object_conversation(Draw(rng)), "chatml")
    conversation, style = draw_conversation(rng, step)
    return written(conversation, style, rng.choices(SPEAKERS, (80, 8, 6, 6))[0])
