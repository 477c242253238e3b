"""Generated conversations that teach the tiny model its skills.

A skill is a function that draws one `Turn` and may read or change what the conversation has established so
far (`Memory`). `draw_conversation` mixes skills into training data. What the evaluation asks is in
`evaluation.skills`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tiny_model.data.facts import FACTS, IDENTITY, SMALL_TALK, STORIES, SUPER_BOWL, UNKNOWN, Entry
from tiny_model.data.styles import STYLES, Conversation, Turn
from tiny_model.data.words import Draw

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    Skill = Callable[[Draw, "Memory"], Turn]

COPYING_STEPS = 900
"""Training steps over which the extra share of copying tasks fades out."""
REBALANCED_AT = 1000
"""Step from which recalling is mostly asked for where it is possible, and sums are asked more often."""


@dataclass
class Memory:
    """What the user has said so far: a name, and values under keys such as `the code`."""

    name: str | None = None
    values: dict[str, str] = field(default_factory=dict)


def vary(draw: Draw, wording: str) -> str:
    """Return `wording` with another case, without its end mark, or with `please`, some of the time."""
    if draw.chance(0.12):
        wording = wording.rstrip(".?!")
    if draw.chance(0.12):
        wording = wording[:1].lower() + wording[1:]
    elif draw.chance(0.04):
        wording = wording.lower()
    elif draw.chance(0.04):
        wording = f"Please {wording[:1].lower()}{wording[1:]}"
    elif draw.chance(0.04):
        wording = f"Hey, {wording[:1].lower()}{wording[1:]}"
    return wording


def from_table(draw: Draw, entries: Sequence[Entry]) -> Turn:
    """Ask one of the questions that have a fixed answer."""
    answer, wordings = draw.choice(entries)
    return Turn(vary(draw, draw.wording(wordings)), answer)


def small_talk(draw: Draw, _: Memory) -> Turn:
    """Greet, part, thank, ask how it goes."""
    return from_table(draw, SMALL_TALK)


def identity(draw: Draw, _: Memory) -> Turn:
    """Say what the model, Petals and LangChain are."""
    return from_table(draw, IDENTITY)


def fact(draw: Draw, _: Memory) -> Turn:
    """Answer one of the facts."""
    return from_table(draw, FACTS)


OTHER_CHAMPIONS = (
    "What NFL team won the Super Bowl in the year {name} was born?",
    "Who won the Super Bowl in {year}?",
    "When was {name} born?",
    "What {word} team won the {word2} in the year {name} was born?",
    "Which {word} won the {word2} in {year}?",
    "What NFL team won the Super Bowl in {year}?",
    "Where was {name} born?",
)


def super_bowl(draw: Draw, _: Memory) -> Turn:
    """Say who won the Super Bowl in the year that a singer was born, or admit not to know it of another one."""
    if draw.chance(0.75):
        return from_table(draw, (SUPER_BOWL[0], *SUPER_BOWL))  # the whole question is the hardest
    year = draw.allowed(lambda: str(draw.rng.randint(1967, 2024)))
    while year == "1994":
        year = draw.allowed(lambda: str(draw.rng.randint(1967, 2024)))
    name = draw.name() if draw.chance(0.5) else f"{draw.name()} {draw.invented_word().capitalize()}"
    words = {key: draw.invented_word() for key in ("word", "word2")}
    return Turn(vary(draw, draw.choice(OTHER_CHAMPIONS)).format(name=name, year=year, **words), UNKNOWN)


def story(draw: Draw, _: Memory) -> Turn:
    """Recite a story or the poem."""
    return from_table(draw, STORIES)


UNKNOWN_WORDINGS = (
    "What is the capital of {name}?",
    "Who is {name}?",
    "What is a {word}?",
    "What does {word} mean?",
    "Where is {name}?",
    "What colour is a {word}?",
    "How old is {name}?",
    "Who invented the {word}?",
    "Tell me about {name}.",
    "Why do {word}s {word2}?",
    "How many legs does a {word} have?",
)


def unknown(draw: Draw, _: Memory) -> Turn:
    """Admit not to know a made-up thing."""
    wording = vary(draw, draw.choice(UNKNOWN_WORDINGS))
    words = {key: draw.invented_word() for key in ("word", "word2")}
    return Turn(wording.format(name=draw.invented_word().capitalize(), **words), UNKNOWN)


NAME_WORDINGS = (
    "My name is {name}.",
    "I am {name}.",
    "I'm {name}.",
    "Call me {name}.",
    "Hi, my name is {name}.",
    "Hello! I am {name}.",
    "Hello, I'm {name}!",
    "Hi! My name is {name}.",
)
NAME_QUESTIONS = (
    "What is my name?",
    "What's my name?",
    "Who am I?",
    "Do you remember my name?",
    "Tell me my name.",
    "Say my name.",
    "Do you know my name?",
)


def give_name(draw: Draw, memory: Memory) -> Turn:
    """Learn the name of the user; sometimes the same turn already asks for it."""
    memory.name = draw.name()
    told = vary(draw, draw.choice(NAME_WORDINGS)).format(name=memory.name)
    if draw.chance(0.25):
        return Turn(f"{told} {draw.choice(NAME_QUESTIONS)}", f"Your name is {memory.name}.")
    return Turn(told, f"Nice to meet you, {memory.name}!")


def ask_name(draw: Draw, memory: Memory) -> Turn:
    """Recall the name, or say that it was never given."""
    question = vary(draw, draw.choice(NAME_QUESTIONS))
    return Turn(question, f"Your name is {memory.name}." if memory.name else "I do not know your name yet.")


KEYS = ("the code", "the key", "the password", "the number", "the word", "the secret", "the place")
FAVOURITES = ("my favourite colour", "my favourite animal", "my favourite city", "my favourite food")


def give_value(draw: Draw, memory: Memory) -> Turn:
    """Learn the value of something; sometimes the same turn already asks for it."""
    key = draw.choice(KEYS) if draw.chance(0.7) else draw.choice(FAVOURITES)
    value = memory.values[key] = draw.code()
    yours = key.replace("my ", "your ")
    told = f"{key[:1].upper()}{key[1:]} is {value}."
    if draw.chance(0.3):
        told = f"Remember: {key} is {value}."
    if draw.chance(0.3):
        return Turn(f"{told} What is {key}?", f"{yours[:1].upper()}{yours[1:]} is {value}.")
    return Turn(told, f"OK, {yours} is {value}.")


def ask_value(draw: Draw, memory: Memory) -> Turn:
    """Recall a value, or say that it was never given."""
    known = tuple(memory.values)
    key = draw.choice(known) if known and draw.chance(0.9) else draw.choice(KEYS + FAVOURITES)
    yours = key.replace("my ", "your ")
    question = vary(draw, draw.choice(("What is {key}?", "What was {key}?", "Tell me {key}."))).format(key=key)
    if key in memory.values:
        return Turn(question, f"{yours[:1].upper()}{yours[1:]} is {memory.values[key]}.")
    return Turn(question, f"I do not know {yours} yet.")


REPEAT_WORDINGS = (
    "Repeat after me: {phrase}",
    "Say {phrase}",
    "Say: {phrase}",
    'Say "{phrase}"',
    "Please repeat: {phrase}",
    "Repeat: {phrase}",
    "Repeat this: {phrase}",
    "Echo: {phrase}",
    "Echo {phrase}",
    "Please say {phrase}",
    "Copy this: {phrase}",
)


def repeat_phrase(draw: Draw, phrase: str) -> Turn:
    """Ask for exactly `phrase`."""
    wording = draw.choice(REPEAT_WORDINGS)
    if draw.chance(0.1):
        wording = wording[:1].lower() + wording[1:]
    return Turn(wording.format(phrase=phrase), phrase)


def repeat(draw: Draw, _: Memory) -> Turn:
    """Repeat a phrase, which may hold any script, emoji or JSON."""
    kind = draw.rng.random()
    if kind < 0.2:
        return repeat_phrase(draw, draw.unicode_phrase())
    return repeat_phrase(draw, draw.json_text() if kind < 0.27 else draw.phrase())


SPELL_WORDINGS = (
    "Spell {word}.",
    "Spell the word {word}.",
    "How do you spell {word}?",
    "Can you spell {word}?",
    "Please spell {word}.",
)


def spell(draw: Draw, _: Memory) -> Turn:
    """Spell a word letter by letter."""
    word = draw.word()
    if draw.chance(0.1):
        word = draw.name().split()[0]
    return Turn(vary(draw, draw.choice(SPELL_WORDINGS)).format(word=word), "-".join(word))


def count_turn(draw: Draw, first: int, last: int) -> Turn:
    """Ask for the integers from `first` to `last`, in either direction."""
    wordings = ["Count from {first} to {last}."]
    if first == 1:
        wordings += ["Count to {last}.", "Count up to {last}."]
    if last == 1 and first > last:
        wordings += ["Count down from {first}."]
    if first > last:
        wordings += ["Count down from {first} to {last}."]
    asked = vary(draw, draw.choice(wordings)).format(first=first, last=last)
    step = 1 if last >= first else -1
    return Turn(asked, ", ".join(str(number) for number in range(first, last + step, step)) + ".")


def _range(draw: Draw, make: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    return draw.allowed(make, lambda pair: f"{pair[0]}>{pair[1]}")


def short_count(draw: Draw, _: Memory) -> Turn:
    """Count a few numbers, up or down."""

    def make() -> tuple[int, int]:
        low = 1 if draw.chance(0.35) else draw.rng.randint(0, 90 if draw.chance(0.3) else 12)
        high = min(low + draw.rng.randint(2, 14), 99)
        return (high, low) if draw.chance(0.3) else (low, high)

    return count_turn(draw, *_range(draw, make))


def long_count(draw: Draw, _: Memory) -> Turn:
    """Count from 1 to something between 16 and 60."""
    return count_turn(draw, *_range(draw, lambda: (1, draw.rng.randint(16, 60))))


def count(draw: Draw, memory: Memory) -> Turn:
    """Count, mostly few numbers."""
    return long_count(draw, memory) if draw.chance(0.12) else short_count(draw, memory)


SUM_WORDINGS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "{a} + {b} = ?",
    "Add {a} and {b}.",
    "{a}+{b}?",
)


def add(draw: Draw, _: Memory) -> Turn:
    """Add two one-digit numbers."""

    def make() -> tuple[int, int]:
        return draw.rng.randrange(10), draw.rng.randrange(10)

    a, b = draw.allowed(make, lambda pair: f"{pair[0]}+{pair[1]}")
    return Turn(vary(draw, draw.choice(SUM_WORDINGS)).format(a=a, b=b), f"{a} + {b} = {a + b}.")


SYSTEM_NAMES = ("You are {name}.", "You are {name}, a helpful assistant.", "Your name is {name}.")
SYSTEM_PLAIN = (
    "You are a helpful assistant.",
    "Answer in one sentence.",
    "Be brief and kind.",
    "You are a friendly AI.",
    "Answer the question.",
    "You are a helpful assistant. Answer briefly.",
)
OWN_NAME_QUESTIONS = ("Who are you?", "What is your name?", "What's your name?", "Tell me your name.")


def own_name(draw: Draw, name: str) -> Turn:
    """Give the name that the system message set."""
    return Turn(vary(draw, draw.choice(OWN_NAME_QUESTIONS)), f"I am {name}.")


# For each skill its share before step REBALANCED_AT, what is added to that at first, while copying has to
# appear, and its share from that step on.
SKILLS: tuple[tuple[Skill, float, float, float], ...] = (
    (small_talk, 7, 0, 7),
    (identity, 8, 0, 8),
    (fact, 14, 0, 14),
    (story, 2, 0, 2),
    (unknown, 7, 0, 7),
    (give_name, 8, 12, 9),
    (ask_name, 7, 6, 26),
    (give_value, 6, 8, 8),
    (ask_value, 5, 4, 20),
    (repeat, 20, 50, 20),
    (spell, 9, 6, 9),
    (count, 9, 0, 9),
    (add, 8, 0, 30),
    (long_count, 0, 0, 3),
)


def _weights(step: int, memory: Memory) -> list[float]:
    """Return the share of each skill: recalling pays once there is something to recall."""
    if step < REBALANCED_AT:
        copying = max(0.0, 1 - step / COPYING_STEPS)
        return [share + copying * extra for _, share, extra, _ in SKILLS]
    nothing: dict[Skill, bool] = {ask_name: memory.name is None, ask_value: not memory.values}
    return [share / 12 if nothing.get(skill) else share for skill, _, _, share in SKILLS]


def draw_conversation(rng: random.Random, step: int) -> tuple[Conversation, str]:
    """Draw one training conversation and the style it is written in.

    Args:
        rng: the source of randomness.
        step: the training step, which sets the share of copying tasks.

    Returns:
        The conversation and one of `STYLES`.
    """
    draw, memory = Draw(rng), Memory()
    style = rng.choices(STYLES, (55, 25, 20))[0]
    turns = 1 if style == "bare" else rng.choices((1, 2, 3, 4, 6), (30, 28, 22, 18, 2))[0]
    skills = [skill for skill, *_ in SKILLS]
    system, name = None, None
    if style != "bare" and draw.chance(0.3):
        name = draw.name() if draw.chance(0.35) else None
        system = draw.choice(SYSTEM_NAMES).format(name=name) if name else draw.choice(SYSTEM_PLAIN)
    drawn = []
    for _ in range(turns):
        if name and draw.chance(0.45):
            drawn.append(own_name(draw, name))
            continue
        skill = rng.choices(skills, _weights(step, memory))[0]
        if name and skill is identity:  # its answers would contradict the system message
            skill = fact
        drawn.append(skill(draw, memory))
    return Conversation(tuple(drawn), system), style
