"""Conversations, and three styles to write them as text for a language model."""

from __future__ import annotations

from dataclasses import dataclass

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)

STYLES = ("chatml", "dialogue", "bare")
SPEAKERS = (("Human", "AI"), ("User", "Assistant"), ("Question", "Answer"), ("Q", "A"))

Segment = tuple[str, bool]


@dataclass(frozen=True)
class Turn:
    """One question and its answer.

    Attributes:
        user: the question.
        answer: the model's last message.
        steps: the model's earlier messages, each with the result of a tool.
    """

    user: str
    answer: str
    steps: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Conversation:
    """Turns of one conversation, after an optional system message.

    Attributes:
        turns: at least one.
        system: content of the system message.
        tools: tools as JSON, written at the end of the system message.
    """

    turns: tuple[Turn, ...]
    system: str | None = None
    tools: tuple[str, ...] = ()


def written(conversation: Conversation, style: str, speakers: tuple[str, str] = SPEAKERS[0]) -> list[Segment]:
    """Write a conversation in one of the `STYLES`.

    The speaker label `AI:` and the line break of the bare style belong to the answer, so that a prompt
    may end before or after them.

    Args:
        conversation: the conversation to write.
        style: `chatml`, `dialogue` (`Human: ...` and `AI: ...` lines) or `bare` (question, line
            break, answer).
        speakers: the two labels of the dialogue style.

    Returns:
        Pieces of text, each with True where the model has to produce it. The last piece is the last
        answer, with `<|im_end|>`.
    """
    segments: list[Segment] = []
    if style == "chatml":
        tools = "\n".join(("# Tools", *conversation.tools)) if conversation.tools else None
        system = "\n\n".join(part for part in (conversation.system, tools) if part)
        asked = f"{TURN_START}system\n{system}{TURN_END}\n" if system else ""
        for turn in conversation.turns:
            asked += f"{TURN_START}user\n{turn.user}"
            for answer, result in (*turn.steps, (turn.answer, "")):
                segments.append((f"{asked}{TURN_END}\n{TURN_START}assistant\n", False))
                segments.append((answer + TURN_END, True))
                asked = f"\n{TURN_START}tool\n{result}"
            asked = "\n"
        return segments
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
