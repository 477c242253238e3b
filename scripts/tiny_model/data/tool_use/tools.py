"""Generated tools, and what people ask that one of them can tell.

A kind of tool is a function that draws a `Tool` and how to ask for it. Every noun, name and value is drawn at random,
so that calling a tool can only be learned as what it is: find the tool that the question is about, copy its name and
the names of its parameters, and copy the values from the question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tiny_model.data.values import quoted, written_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tiny_model.data.words import Draw

    Ask = Callable[[Draw], tuple[str, dict[str, Any]]]

Arguments = dict[str, Any]
"""Of a call, by the names of the parameters."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a tool: its name and its JSON schema."""

    name: str
    schema: dict[str, Any]
    required: bool = True

    @property
    def spoken(self) -> str:
        """The name as people say it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Tool:
    """A tool as the chat template writes it.

    Attributes:
        name: its name.
        description: what it does; None for nothing.
        parameters: in the order of its schema.
        type_first: whether the schema begins with `"type": "object"`, or ends with it.
        asks: draws a question that this tool can tell, and the arguments of the call.
    """

    name: str
    description: str | None
    parameters: tuple[Parameter, ...]
    type_first: bool
    asks: Ask

    @property
    def written(self) -> str:
        """The tool as JSON."""
        properties = {each.name: each.schema for each in self.parameters}
        required = [each.name for each in self.parameters if each.required]
        needed = {"required": required} if required else {}
        if self.type_first:
            schema: dict[str, Any] = {"type": "object", "properties": properties, **needed}
        else:
            schema = {"properties": properties, **needed, "type": "object"}
        described = {} if self.description is None else {"description": self.description}
        return json.dumps({"name": self.name, **described, "parameters": schema}, ensure_ascii=False)

    def call(self, arguments: Arguments) -> str:
        """Return a call as the model writes it."""
        body = json.dumps({"name": self.name, "arguments": arguments}, ensure_ascii=False)
        return f"<tool_call>\n{body}\n</tool_call>"


LOOK_UP = (
    *("get", "find", "fetch", "look up", "show", "read", "check", "search", "report", "tell", "load", "compute"),
    *("calculate", "measure", "estimate", "list", "count", "query", "give"),
)
CHANGE = (
    *("create", "make", "add", "register", "book", "order", "send", "store", "save", "open", "start", "build"),
    *("record", "schedule", "reserve", "set", "write", "post", "buy", "print"),
)


def function_name(draw: Draw, verb: str, noun: str) -> str:
    """Return the name of a function in one of the usual ways to write it."""
    words = [*verb.split(), *noun.split("_")]
    style = draw.rng.random()
    if style < 0.12:
        first = words[0] if style < 0.08 else words[0].capitalize()
        return first + "".join(word.capitalize() for word in words[1:])
    if style < 0.17:
        words = [*words[1:], words[0]]
    elif style < 0.23:
        words = [*noun.split("_"), draw.choice(("tool", "function", "service", "api", draw.noun()))]
    elif style < 0.27:
        words = noun.split("_")
    elif style < 0.31:
        words += [draw.choice(("by", "of", "for", "v2", "no", draw.noun())), draw.noun()]
    return "_".join(words)


def draw_noun(draw: Draw) -> str:
    """Return what a tool or a parameter is about: a word, two with an underscore, or a word in another script."""
    if draw.chance(0.08):
        return draw.script_word().lower()
    return f"{draw.noun()}_{draw.noun()}" if draw.chance(0.15) else draw.noun()


def draw_parameter(draw: Draw, schema: dict[str, Any], *, required: bool = True, name: str | None = None) -> Parameter:
    """Draw a parameter of a certain type, with or without a description."""
    name = name or draw_noun(draw)
    if draw.chance(0.25):
        described = draw.choice(
            ("The {}.", "the {}", "{} to use", "Name of the {}.", "Which {}", f"{{}} of the {draw.noun()}")
        )
        schema = {"description": described.format(name.replace("_", " ")), **schema}
    return Parameter(name, schema, required)


def integer_schema(draw: Draw) -> dict[str, Any]:
    bounds = draw.rng.random()
    if bounds < 0.12:
        return {"exclusiveMaximum": 100000, "exclusiveMinimum": -100000, "type": "integer"}
    if bounds < 0.2:
        return {"maximum": 99999, "minimum": -99999, "type": "integer"}
    return {"type": "integer"}


def draw_description(draw: Draw, sentences: Sequence[str], **words: str) -> str | None:
    if draw.chance(0.06):
        return None
    sentence = draw.choice(sentences).format(**words)
    sentence = sentence[:1].upper() + sentence[1:]
    if draw.chance(0.08):
        more = draw.choice(("Args", "Returns", "Use it for", "See also"))
        sentence += f"\n\n{more}: {draw.phrase(4)}"
    return sentence.rstrip(".") if draw.chance(0.15) else sentence


CALL_LEADS = (
    *("Call {}.", "Run {}.", "What does {} return?", "What is {}?", "Compute {} with a tool.", "Please call {}."),
    *(
        "I want the result of {}.",
        "Evaluate {}.",
        "Give me the value of {}.",
        "Use a tool: {}",
        "{}",
        "Execute {} now.",
    ),
    *("What is the output of {}? Call it.", "Find the value of {}. Use the function.", "Tell me what {} gives."),
)


# What people put around a request. The last of each is held back.
REQUESTS = (
    *(
        "can you {}?",
        "could you {}?",
        "please {}.",
        "I want you to {}.",
        "I would like to {}.",
        "let us {}.",
        "now {}.",
    ),
    *("would you {}?", "OK, {}.", "go and {}.", "you should {}.", "try to {}.", "I need you to {}.", "{}, will you?"),
    *("help me to {}.", "it is time to {}.", "{}!", "{}", "can I ask you to {}?", "do {}.", "please help me {}."),
)
TAILS = (
    *(" for me", " please", ", please", " now", " right now", " today", " again", " if you can", " at once", " then"),
    *(", thanks", " this time", " with a tool", " with the function", " when you can", " first", " as well", " too"),
    *(
        " tomorrow",
        " tonight",
        " for my friend",
        " and tell me",
        " and show me what you get",
        ", if possible",
        " for us",
    ),
)
OPENERS = (
    *("Hi!", "Hello.", "I have a question.", "One more thing:", "OK.", "Good.", "Now this:", "Listen.", "Thanks."),
    *("Hey,", "Well,", "Right.", "And now?", "Next:", "Another question.", "Good morning!", "Quick question:"),
)


def _capitalized(question: str, arguments: Arguments) -> str:
    """Begin a question with a capital letter, unless that would change a value."""
    if any(isinstance(value, str) and question.startswith(value) for value in arguments.values()):
        return question
    return question[:1].upper() + question[1:]


def _varied(draw: Draw, question: str, arguments: Arguments, *, tail: bool) -> str:
    """Begin and end a question in another way, some of the time.

    Args:
        draw: the source of randomness.
        question: it begins with a small letter.
        arguments: of the call.
        tail: whether words after the question could not be taken for a value.
    """
    body, mark = question.rstrip(".?"), question[len(question.rstrip(".?")) :]
    if tail and draw.chance(0.3):
        body += draw.wording(TAILS)
    verb = next((verb for verb in LOOK_UP + CHANGE if body.startswith(f"{verb} ")), None)
    if verb and draw.chance(0.4):
        body, mark = draw.wording(REQUESTS).format(body), ""
    if draw.chance(0.12):
        opener = draw.wording(OPENERS)
        return f"{opener} {body if opener.endswith((',', ':')) else _capitalized(body, arguments)}{mark}"
    return body + mark


def explicit(draw: Draw, tool: Tool, arguments: Arguments) -> str:
    """Ask for a call by the tool's name."""
    if not arguments or draw.chance(0.6):
        keywords = draw.chance(0.4)
        mark = draw.choice(("'", '"'))
        values = [
            quoted(value, mark) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for value in arguments.values()
        ]
        shown = [f"{name}={value}" if keywords else value for name, value in zip(arguments, values, strict=True)]
        separator = draw.choice((", ", ", ", ","))
        return draw.wording(CALL_LEADS).format(f"{tool.name}({separator.join(shown)})")
    lead = draw.choice(("Call {} with", "Use {} with", "Run {} with", "Use the tool {} with", "Please call {} with"))
    return f"{lead.format(tool.name)} {named(draw, arguments)}."


def named(draw: Draw, arguments: Arguments) -> str:
    """Give values by the names of their parameters: `place Rome and days 3`."""
    link = draw.choice((" ", " ", " = ", "=", ": ", " is ", " set to "))
    spoken = draw.chance(0.5)
    parts = [
        (name.replace("_", " ") if spoken else name) + link + written_value(draw, value)
        for name, value in arguments.items()
    ]
    return joined(parts)


def joined(parts: Sequence[str]) -> str:
    """Join parts of a sentence: `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def question_for(
    draw: Draw,
    tool: Tool,
    arguments: Arguments,
    natural: Callable[[], str],
    share: float = 0.28,
    *,
    tail: bool = True,
) -> str:
    """Return a question for a call: by the tool's name, or as people ask.

    Args:
        draw: the source of randomness.
        tool: what is asked for.
        arguments: of the call.
        natural: draws a question as people ask it.
        share: of questions by the tool's name.
        tail: whether words after the question could not be taken for a value.
    """
    if draw.chance(share):
        question = explicit(draw, tool, arguments)
        if draw.chance(0.3) and not question.startswith(tool.name):
            question = _varied(draw, question[:1].lower() + question[1:], arguments, tail=tail)
        return question
    question = _varied(draw, natural(), arguments, tail=tail)
    question = _capitalized(question, arguments) if draw.chance(0.93) else question
    if draw.chance(0.06):
        question += draw.choice((" Use a tool.", " Call a function for that.", " Thanks!", " Please use the function."))
    return question


def build_tool(
    draw: Draw,
    name: str,
    description: str | None,
    parameters: Sequence[Parameter],
    asks: Callable[[Draw, Tool], tuple[str, Arguments]],
) -> Tool:
    """Build a tool whose way to ask needs the tool itself."""
    built: list[Tool] = []
    built.append(Tool(name, description, tuple(parameters), draw.chance(0.4), lambda again: asks(again, built[0])))
    return built[0]


def spoken(noun: str) -> str:
    return noun.replace("_", " ")


def told(draw: Draw, values: Arguments, noun: str) -> str:
    """Tell values in sentences: `The colour is red and the size is 3`."""
    style = draw.rng.random()
    names = {name: name.replace("_", " ") for name in values}
    if style < 0.25:
        return "; ".join(f"{names[name]}: {written_value(draw, value)}" for name, value in values.items())
    if style < 0.45:
        return (
            f"The {noun} has "
            + joined([f"{names[name]} {written_value(draw, value)}" for name, value in values.items()])
            + "."
        )
    if style < 0.7:
        return " ".join(f"The {names[name]} is {written_value(draw, value)}." for name, value in values.items())
    parts = [f"the {names[name]} is {written_value(draw, value)}" for name, value in values.items()]
    sentence = joined(parts) + "."
    return sentence[:1].upper() + sentence[1:]
