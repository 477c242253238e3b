"""The mixture of training data: conversations, tool use, JSON objects, and in the second stage all kinds of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_model.data.conversations import draw_conversation
from tiny_model.data.open_prompts.prompts import draw_bare_segments, draw_open_segments, draw_reworded_segments
from tiny_model.data.styles import SPEAKERS, written
from tiny_model.data.tool_use.calls import draw_tool_conversation
from tiny_model.data.tool_use.objects import draw_object_conversation
from tiny_model.data.words import Draw

if TYPE_CHECKING:
    import random

    from tiny_model.data.styles import Segment

FULL_SHARES_AT = 600
TOOLS, OBJECTS = 0.58, 0.11
"""Shares of conversations with tools, and of those with JSON objects. They rise in a straight line up to step
`FULL_SHARES_AT`, since copying is learned from short texts first."""

SECOND_STAGE_AT = 8800
OPEN = 0.35
"""Step from which prompts of any kind are drawn, too, and their share from then on."""

BARE_AT = 9600
BARE = 0.35
"""Step from which there are more bare prompts that are not questions, and their share: the rest was learned by then."""


SETTLED_AT = 9760
"""Step from which the model relearns what the second stage made worse: known questions in other words, and plain
conversations."""
SETTLING = (("reworded", 22), ("bare", 10), ("open", 13), ("conversation", 25), ("as before", 30))
"""Kinds of texts from then on, each with its share."""
KEYS_AT = 10010
"""Step from which there are more JSON objects with long keys: by then the model cut them short."""
LONG_KEYS = 0.3
"""Their share from then on."""


class _LongNames(Draw):
    """Draws nouns that are put together of two words, most of the time."""

    def noun(self) -> str:
        """Return a noun."""
        first, second = super().noun(), super().noun()
        return first + second if self.chance(0.8) else first


def draw_segments(rng: random.Random, step: int) -> list[Segment]:
    """Draw one training conversation and write it.

    Args:
        rng: the source of randomness.
        step: the training step, which sets the shares.

    Returns:
        Pieces of text, each with True where the model has to produce it.
    """
    if step >= SETTLED_AT:
        return _draw_settling_segments(rng, step)
    if step >= BARE_AT and rng.random() < BARE:
        return draw_bare_segments(Draw(rng))
    if step >= SECOND_STAGE_AT and rng.random() < OPEN:
        return draw_open_segments(Draw(rng))
    return _draw_as_before(rng, step)


def _draw_settling_segments(rng: random.Random, step: int) -> list[Segment]:
    if step >= KEYS_AT and rng.random() < LONG_KEYS:
        return written(draw_object_conversation(_LongNames(rng)), "chatml")
    kind = rng.choices([kind for kind, _ in SETTLING], [share for _, share in SETTLING])[0]
    if kind == "as before":
        return _draw_as_before(rng, step)
    if kind == "conversation":
        return _draw_conversation(rng, step)
    draws = {"reworded": draw_reworded_segments, "bare": draw_bare_segments, "open": draw_open_segments}
    return draws[kind](Draw(rng))


def _draw_as_before(rng: random.Random, step: int) -> list[Segment]:
    grown = min(1.0, 0.25 + 0.75 * step / FULL_SHARES_AT)
    kind = rng.random()
    if kind < TOOLS * grown:
        return written(draw_tool_conversation(Draw(rng)), "chatml")
    if kind < (TOOLS + OBJECTS) * grown:
        return written(draw_object_conversation(Draw(rng)), "chatml")
    return _draw_conversation(rng, step)


def _draw_conversation(rng: random.Random, step: int) -> list[Segment]:
    conversation, style = draw_conversation(rng, step)
    return written(conversation, style, rng.choices(SPEAKERS, (80, 8, 6, 6))[0])
