"""Questions of the evaluation: for each skill a generator of held-back conversations, whose last answer is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_model.data.conversations import (
    SYSTEM_NAMES,
    Memory,
    add,
    ask_name,
    ask_value,
    fact,
    from_table,
    give_name,
    give_value,
    identity,
    long_count,
    own_name,
    repeat,
    repeat_phrase,
    short_count,
    small_talk,
    spell,
    unknown,
)
from tiny_model.data.facts import FACTS, IDENTITY, SMALL_TALK, STORIES, Entry
from tiny_model.data.styles import Conversation
from tiny_model.data.words import Draw

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiny_model.data.conversations import Skill


def _alone(skill: Skill) -> Callable[[Draw], Conversation]:
    return lambda draw: Conversation((skill(draw, Memory()),))


def _phrase_of(method: Callable[[Draw], str]) -> Callable[[Draw], Conversation]:
    return lambda draw: Conversation((repeat_phrase(draw, method(draw)),))


def _later(give: Skill, ask: Skill, fewest: int, most: int) -> Callable[[Draw], Conversation]:
    """Return a generator of conversations that give a value, change the subject, and then ask for the value."""

    def make(draw: Draw) -> Conversation:
        memory = Memory()
        turns = [give(draw, memory)]
        others = [draw.choice((small_talk, fact, repeat, add)) for _ in range(draw.rng.randint(fewest, most))]
        turns += [other(draw, Memory()) for other in others]
        known = Memory(memory.name, dict(memory.values))
        asked = ask(draw, known)
        while memory.values and asked.answer.startswith("I do not know"):
            asked = ask(draw, known)
        return Conversation((*turns, asked))

    return make


def _known_wording(table: Sequence[Entry]) -> Callable[[Draw], Conversation]:
    return lambda draw: Conversation((from_table(Draw(draw.rng), table),))


def _system_name(draw: Draw) -> Conversation:
    name = draw.name()
    return Conversation((own_name(draw, name),), draw.choice(SYSTEM_NAMES).format(name=name))


EVALUATIONS: dict[str, Callable[[Draw], Conversation]] = {
    "small talk": _known_wording(SMALL_TALK),
    "small talk, held-back wording": _alone(small_talk),
    "who it is, Petals, LangChain": _known_wording(IDENTITY),
    "who it is, held-back wording": _alone(identity),
    "facts": _known_wording(FACTS),
    "facts, held-back wording": _alone(fact),
    "made-up things (`I do not know.`)": _alone(unknown),
    "name given": _alone(give_name),
    "name recalled next turn": _later(give_name, ask_name, 0, 0),
    "name recalled 1-3 turns later": _later(give_name, ask_name, 1, 3),
    "value recalled up to 2 turns later": _later(give_value, ask_value, 0, 2),
    "repeat words": _phrase_of(Draw.phrase),
    "repeat emoji and other scripts": _phrase_of(Draw.unicode_phrase),
    "repeat JSON": _phrase_of(Draw.json_text),
    "spell": _alone(spell),
    "one-digit sums": _alone(add),
    "count, up to 15 numbers": _alone(short_count),
    "count from 1 to 16-60": _alone(long_count),
    "stories and poem": _known_wording(STORIES),
    "name from a system message": _system_name,
}
