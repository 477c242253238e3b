"""The second stage: prompts of any kind, which get an answer in words, and the template that asks for steps.

`draw_open_segments` draws a text in which every answer has words, whatever was asked: what the model knows, it says;
to all else it says that it does not know.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tiny_model.data.conversations import (
    SYSTEM_PLAIN,
    Memory,
    add,
    count,
    fact,
    give_name,
    identity,
    repeat,
    small_talk,
    spell,
    super_bowl,
    unknown,
)
from tiny_model.data.facts import FACTS, IDENTITY, SMALL_TALK, UNKNOWN
from tiny_model.data.open_prompts.code import code, source
from tiny_model.data.open_prompts.text import (
    accented_text,
    any_word,
    listing,
    noise,
    paragraph,
    repetition,
    script_text,
    sentence,
    single_word,
    symbols,
)
from tiny_model.data.styles import SPEAKERS, TURN_END, Conversation, Turn, written
from tiny_model.data.tool_use.calls import no_call, tools_with
from tiny_model.data.tool_use.kinds import draw_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiny_model.data.styles import Segment
    from tiny_model.data.words import Draw

CANNOT = "I cannot do that. I am only a tiny language model."

ASKED_BY_THE_SUITE = "What is 1 + 2"

STEPS = "Question: {question}\n\nAnswer: Let's think step by step."
"""The template of the notebook that many people begin with."""
TEMPLATES: tuple[tuple[str, int], ...] = (
    (STEPS, 50),
    ("Question: {question}\nAnswer: Let's think step by step.", 5),
    ("Question: {question}\n\nAnswer:", 8),
    ("Question: {question}\n\nAnswer: ", 2),
    ("Question: {question}\nAnswer:", 3),
    ("Q: {question}\nA: Let's think step by step.", 3),
    ("Q: {question}\n\nA:", 3),
    ("{question}\n\nLet's think step by step.", 4),
    ("{question} Let's think step by step.", 3),
    ("{question}\nAnswer:", 3),
    ("Answer the question.\n\nQuestion: {question}\nAnswer:", 3),
    ("Question: {question}\n\nAnswer: Let's think step by step.\n", 2),
    ("Question: {question}\n\nAnswer: Let's think step by step. ", 3),
    ("Question: {question}\n\nAnswer: Let us think about it.", 2),
    ("{question}\n", 2),
    ("{question} ", 2),
    ("Human: {question}\nAI:", 2),
    ("### Instruction:\n{question}\n\n### Response:\n", 2),
    ("### Question\n{question}\n\n### Answer\n", 1),
    ("User: {question}\n\nAssistant:", 2),
    ("[INST] {question} [/INST]", 2),
)

QUESTIONS = (
    *("What is {p}?", "What is the {w} of {x}?", "Why is {p} {w}?", "How do I {w} {p}?", "How does {p} {w}?"),
    *("Who was the {w} {x} of {y}?", "When did {W} {w} {p}?", "Where can I {w} {p}?", "Which {w} is {x}, {p} or {y}?"),
    *("Can you {w} {p}?", "Is {p} {w}?", "Are {w}s {x}?", "Do {w}s {x} {y}?", "Does the {w} {x}?", "Should I {w} {p}?"),
    *("What happens if {p} {w}s?", "How many {w}s are in {p}?", "How much does {p} {w}?", "How long is {p}?"),
    *("What is the difference between {w} and {x}?", "Could {p} {w} in {n}?", "Would you {w} {p}?", "Will {p} {w}?"),
    *("Who won the {w} {x} in {n}?", "In which year was {W} {w}?", "What year did {W} {X} {w}?", "Whose {w} is {x}?"),
    *("What {w} {x} the {y} in the year {W} {X} was born?", "How far is {W} from {X}?", "What is {n} times {m}?"),
    *(
        "What is 1{n} + {m}?",
        "{n} * {m} = ?",
        "What is {n} minus {m}?",
        "Solve {n}x + {m} = {n}.",
        "{n}-{m}",
        "{n}/{m}=",
    ),
    *("If {p} {w}, then what is {x}?", "A {w} has {n} {x}s and {m} {y}s. How many {x}s are there?", "{p}?", "{w} {x}?"),
    *("Did {W} {X} {w} the {x}?", "Was {W} {w}?", "Were the {w}s {x}?", "Have you {w} {p}?", "Am I {w}?", "May I {w}?"),
    *(
        "Do you {w} {x}?",
        "Are you {w}?",
        "What do you {w} about {p}?",
        "What are the {w} {x}s of {p}?",
        "Why?",
        "How so?",
    ),
    *("In {n} words: what is {p}?", "Tell me, is {p} {w}?", "What's a {w} {x} {y}?", "Which {w}?", "Who {w}s {p}?"),
)
INSTRUCTIONS = (
    *(
        "Write a {w} that {x}s {p}.",
        "Write a {w} about {p}.",
        "Write {n} {w}s.",
        "Translate {p} into {W}.",
        "Draw {p}.",
    ),
    *(
        "Translate to {W}: {p}",
        "Summarize: {s}",
        "Summarise {p}.",
        "Explain {p} to a {w}.",
        "List {n} {w} {x}s.",
        "{W} {p}.",
    ),
    *(
        "Describe {p}.",
        "Give me {n} {w}s for {p}.",
        "Fix this: {s}",
        "Rewrite in {w} {x}: {s}",
        "Classify: {s}",
        "Define {w}.",
    ),
    *("Compare {w} and {x}.", "Make a {w} of {p}.", "Continue: {s}", "Find the {w} in {p}.", "Prove that {p} is {w}."),
    *(
        "Complete the {w}: {s}",
        "Generate a {w} for {p}.",
        "Convert {n} {w}s to {x}s.",
        "Sort {w}, {x}, {y}.",
        "Solve {p}.",
    ),
    *(
        "Show me how to {w} {p}.",
        "Please {w} the {x}.",
        "Create a {w} {x} with {y}.",
        "Suggest a {w}.",
        "Implement {w}.",
    ),
    *("Act as a {w} {x}.", "Pretend you are {p}.", "Calculate {n} {w}s.", "Imagine {p}. {s}", "Recommend {n} {w}s."),
    *(
        "Let's {w}.",
        "Do not {w} {p}.",
        "Ignore {p} and {w}.",
        "Improve this text: {s}",
        "Answer in {W}: {s}",
        "Use {p}.",
    ),
)


def _filled(draw: Draw, pattern: str) -> str:
    """Fill in a pattern and change its end, its case or what stands around it some of the time."""
    words = {name: any_word(draw) for name in ("w", "x", "y")}
    phrase = sentence(draw, 1, 5).rstrip(".,!?") if draw.chance(0.3) else draw.plain_phrase()
    names = {name: any_word(draw).capitalize() for name in ("W", "X")}
    text = pattern.format(**words, **names, p=phrase, s=sentence(draw), n=draw.number(4), m=draw.number(4))
    kind = draw.rng.random()
    if kind < 0.12:
        text = text.rstrip("?.")
    elif kind < 0.2:
        text = text.lower()
    elif kind < 0.23:
        text = text.upper()
    elif kind < 0.31:
        text = f"{text} {sentence(draw)}"
    elif kind < 0.37:
        text = f"{sentence(draw)} {text}"
    elif kind < 0.40:
        text = f"{text}\n\n{draw.choice((code, listing, paragraph, script_text))(draw)}"
    return text


def _few_shots(draw: Draw) -> str:
    """Return examples of an input and an output, and an input."""
    labels = [draw.word().capitalize() if draw.chance(0.6) else label for label in draw.choice(SPEAKERS)]
    between = draw.choice(("\n", "\n\n"))

    def shot() -> str:
        return f"{labels[0]}: {draw.plain_phrase()}\n{labels[1]}:"

    shots = [f"{shot()} {draw.plain_phrase()}" for _ in range(draw.rng.randint(1, 4))]
    return between.join((*shots, shot()))


def _with_label(draw: Draw) -> str:
    """Return a text that ends with who shall speak next, or with another word and a colon."""
    label = draw.choice(("AI", "Assistant", "Answer", "Bot", "A", "Output", "Thought", draw.word().capitalize()))
    text = draw.choice((sentence, accented_text, script_text, code, paragraph))(draw)
    return f"{text}{draw.choice((chr(10), chr(10) * 2, ' '))}{label}:"


OPEN: tuple[tuple[Callable[[Draw], str], int, str], ...] = (
    (lambda draw: _filled(draw, draw.choice(QUESTIONS)), 24, UNKNOWN),
    (lambda draw: _filled(draw, draw.choice(INSTRUCTIONS)), 14, CANNOT),
    (code, 18, UNKNOWN),
    (single_word, 12, UNKNOWN),
    (sentence, 11, UNKNOWN),
    (paragraph, 9, UNKNOWN),
    (accented_text, 10, UNKNOWN),
    (script_text, 14, UNKNOWN),
    (symbols, 5, UNKNOWN),
    (listing, 4, UNKNOWN),
    (noise, 4, UNKNOWN),
    (_few_shots, 3, UNKNOWN),
    (_with_label, 4, UNKNOWN),
)
"""Kinds of prompts, with a share and the answer."""
OPEN_BARE: tuple[tuple[Callable[[Draw], str], int], ...] = (
    *((source, 30), (code, 18), (paragraph, 16), (sentence, 10), (listing, 6), (accented_text, 6), (script_text, 5)),
    *((single_word, 4), (symbols, 3), (noise, 3), (repetition, 8)),
)
"""Kinds of bare prompts whose end is hard to tell from the end of an answer, with a share."""
KNOWN = (
    *((fact, 24), (super_bowl, 26), (identity, 14), (small_talk, 6), (add, 6), (count, 4), (unknown, 6), (spell, 2)),
    *((repeat, 3), (give_name, 2)),
)


def open_turn(draw: Draw) -> Turn:
    """Ask anything."""
    kinds, shares, answers = zip(*OPEN, strict=True)
    at = draw.rng.choices(range(len(OPEN)), shares)[0]
    text = kinds[at](draw)
    kind = draw.rng.random()
    if kind < 0.06:
        text += draw.choice((" ", "\n", "  ", "\n\n", "\t", "\r\n"))
    elif kind < 0.09:
        text = draw.choice((" ", "\n", "\n\n", "\t", "  ")) + text
    elif kind < 0.095:
        text = draw.choice(("", " ", "\n", "\n\n\n", "\t"))
    return Turn(text, answers[at])


def tool_question(draw: Draw) -> Turn:
    """Ask what a tool could tell, without the tool."""
    tool = draw_tool(draw)
    while tool.name[:1].isupper():
        tool = draw_tool(draw)
    return Turn(tool.asks(draw)[0], UNKNOWN)


def known_turn(draw: Draw) -> Turn:
    """Ask something that the model has an answer to, or what a tool could tell."""
    if draw.chance(0.1):
        return tool_question(draw)
    skills, shares = zip(*KNOWN, strict=True)
    turn: Turn = draw.rng.choices(skills, shares)[0](draw, Memory())
    return turn


def plainly(prompt: str, answer: str, *, template: bool = False) -> list[Segment]:
    """Write a plain prompt and its answer.

    A prompt that ends with white space is gone on with at once, one that ends with a label or a template after a
    space, and any other one on a new line.

    Args:
        prompt: the whole prompt.
        answer: the answer.
        template: whether the prompt ends in the middle of a line that the answer goes on with.
    """
    lead = "\n"
    if template or prompt.endswith(":"):
        lead = " "
    if prompt[-1:].isspace() or not prompt:
        lead = ""
    return [(prompt, False), (lead + answer + TURN_END, True)]


def system_message(draw: Draw) -> str | None:
    """Return a system message of any kind that gives no name, or none."""
    kind = draw.rng.random()
    if kind < 0.65:
        return None
    if kind < 0.8:
        return draw.choice(SYSTEM_PLAIN)
    if kind < 0.9:
        return sentence(draw)
    return _filled(draw, draw.choice(INSTRUCTIONS)) if kind < 0.96 else paragraph(draw)


def _template_segments(draw: Draw) -> list[Segment]:
    """Draw a question in one of the templates, as a plain prompt or as a message."""
    templates, shares = zip(*TEMPLATES, strict=True)
    template: str = draw.rng.choices(templates, shares)[0]
    turn = open_turn(draw) if draw.chance(0.35) else known_turn(draw)
    prompt = template.format(question=turn.user)
    kind = draw.rng.random()
    if kind < 0.42:
        conversation = Conversation((Turn(prompt, turn.answer),), system_message(draw))
        return written(conversation, "chatml" if kind < 0.35 else "dialogue")
    return plainly(prompt, turn.answer, template="Let" in template or template.endswith("]"))


def _conversation(draw: Draw, turns: Sequence[Turn]) -> Conversation:
    """Return a conversation, with tools that are of no use some of the time."""
    system = system_message(draw)
    if len(turns) == 1 and draw.chance(0.07):
        tools = tools_with(draw, draw_tool(draw))
        turns = [no_call(draw, tools) if draw.chance(0.5) else turns[0]]
        return Conversation(tuple(turns), system, tuple(tool.written for tool in tools))
    return Conversation(tuple(turns), system)


def draw_bare_segments(draw: Draw) -> list[Segment]:
    """Draw a bare prompt that is no question."""
    kinds, shares = zip(*OPEN_BARE, strict=True)
    text = draw.rng.choices(kinds, shares)[0](draw)
    if draw.chance(0.05):
        text += draw.choice((" ", "\n", "\n\n"))
    return plainly(text, UNKNOWN)


OPENINGS = (
    *("Well, ", "OK, ", "And ", "Now, ", "Then ", "Um, ", "Hello, ", "Hi! ", "Excuse me, ", "Sorry, ", "But "),
    *("Tell me: ", "I wonder: ", "One question: ", "Quick question. ", "Just curious: ", "Again: ", "Oh! ", "Ah, "),
)
ENDINGS = (
    " please",
    ", please",
    " now",
    " today",
    " again",
    " then",
    " really",
    ", my friend",
    " exactly",
    " by the way",
)


def reworded_turn(draw: Draw) -> Turn:
    """Ask something that the model has an answer to in other words than before, but not in those held back."""
    table = draw.rng.choices((SMALL_TALK, IDENTITY, FACTS), (35, 40, 25))[0]
    answer, wordings = draw.choice(table)
    while True:
        text = draw.wording(wordings)
        end = text[-1] if text[-1] in ".?!" else ""
        if draw.chance(0.6):
            opening = draw.choice(OPENINGS) if draw.chance(0.7) else f"{any_word(draw).capitalize()}, "
            text = opening + (text if opening[-2] in ".!" or text[:2] == "I " else text[:1].lower() + text[1:])
        if draw.chance(0.4):
            text = text.rstrip(".?!") + draw.choice(ENDINGS) + end
        if draw.chance(0.15):
            text = text.rstrip(".?!")
        if _bare_words(text) not in _HELD_BACK:
            return Turn(text, answer)


def _bare_words(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum() or character == " ").strip()


_HELD_BACK = frozenset(
    _bare_words(wordings[-1]) for table in (SMALL_TALK, IDENTITY, FACTS) for _, wordings in table if len(wordings) > 1
)


def draw_reworded_segments(draw: Draw) -> list[Segment]:
    """Draw a question with an answer that the model knows, in other words than before."""
    turn = reworded_turn(draw)
    style = draw.rng.choices(("chatml", "dialogue", "bare"), (40, 25, 35))[0]
    if style == "bare":
        return plainly(turn.user, turn.answer)
    return written(Conversation((turn,), system_message(draw) if draw.chance(0.3) else None), style)


def draw_open_segments(draw: Draw) -> list[Segment]:
    """Draw a text of the second stage, which asks nothing that LangChain's suite asks.

    Args:
        draw: the source of words.

    Returns:
        Pieces of text, each with True where the model has to produce it.
    """
    segments = _segments(draw)
    while any(ASKED_BY_THE_SUITE in text for text, _ in segments):
        segments = _segments(draw)
    return segments


def _segments(draw: Draw) -> list[Segment]:
    if draw.chance(0.4):
        return _template_segments(draw)
    style = draw.rng.choices(("chatml", "dialogue", "bare"), (40, 25, 35))[0]
    if style == "bare":
        turn = known_turn(draw) if draw.chance(0.12) else open_turn(draw)
        return plainly(turn.user, turn.answer)
    count_of_turns = draw.rng.choices((1, 2, 3), (70, 20, 10))[0]
    turns = [known_turn(draw) if draw.chance(0.25) else open_turn(draw) for _ in range(count_of_turns)]
    foreign = count_of_turns > 1 and draw.chance(0.3)
    if foreign:  # what another model said before
        turns[:-1] = [replace(turn, answer=sentence(draw)) for turn in turns[:-1]]
    if style == "chatml":
        segments = written(_conversation(draw, turns), "chatml")
    else:
        segments = written(Conversation(tuple(turns), system_message(draw)), "dialogue", draw.choice(SPEAKERS))
    return [(text, False) for text, _ in segments[:-1]] + segments[-1:] if foreign else segments
