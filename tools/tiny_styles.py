"""Conversations and the three ways of writing them as a text that a language model goes on with."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

STYLES = ("chatml", "dialogue", "bare")
SPEAKERS = (("Human", "AI"), ("User", "Assistant"), ("Question", "Answer"), ("Q", "A"))

Segment = tuple[str, bool]


@dataclass(frozen=True)
class Turn:
    """One question and its answer."""

    user: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Turns of one conversation, after an optional system message."""

    turns: tuple[Turn, ...]
    system: str | None = None


def written(conversation: Conversation, style: str, speakers: tuple[str, str] = SPEAKERS[0]) -> list[Segment]:
    """Write a conversation in one of the `STYLES`.

    The speaker label `AI:` and the line break of the bare style belong to the answer, so that a prompt
    may end before or after them.

    Args:
        conversation: what is said.
        style: `chatml`, `dialogue` (`Human: ...` and `AI: ...` lines) or `bare` (question, line
            break, answer).
        speakers: the two labels of the dialogue style.

    Returns:
        Pieces of text, each with True where the model has to produce it. The last piece is the last
        answer, with `<|im_end|>`.
    """
    segments: list[Segment] = []
    if style == "chatml":
        if conversation.system:
            segments.append((f"{TURN_START}system\n{conversation.system}{TURN_END}\n", False))
        for turn in conversation.turns:
            segments.append((f"{TURN_START}user\n{turn.user}{TURN_END}\n{TURN_START}assistant\n", False))
            segments.append((turn.answer + TURN_END, True))
            segments.append(("\n", False))
        return segments[:-1]
    if style == "bare":
        (turn,) = conversation.turns
        return [(turn.user, False), (f"\n{turn.answer}{TURN_END}", True)]
    user, assistant = speakers
    if conversation.system:
        segments.append((f"System: {conversation.system}\n", False))
    for turn in conversation.turns:
        segments.append((f"{user}: {turn.user}", False))
        segments.append((f"\n{assistant}: {turn.answer}", True))
        segments.append(("\n", False))
    return [*segments[:-2], (segments[-2][0] + TURN_END, True)]
