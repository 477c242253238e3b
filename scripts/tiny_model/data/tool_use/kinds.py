"""The kinds of tools that training data has, and how people ask for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiny_model.data.tool_use.arithmetic import of_operation
from tiny_model.data.tool_use.tools import (
    CHANGE,
    LOOK_UP,
    Arguments,
    Parameter,
    Tool,
    build_tool,
    draw_description,
    draw_noun,
    draw_parameter,
    function_name,
    integer_schema,
    joined,
    named,
    question_for,
    spoken,
    told,
)
from tiny_model.data.values import bare, integer, quoted, text_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_model.data.words import Draw

LOOK_UP_WORDINGS = (
    "what is the {noun} of {value}?",
    "what is the {noun} in {value}?",
    "what's the {noun} for {value}?",
    "what is the {noun} at {value}?",
    "how is the {noun} in {value}?",
    "{verb} the {noun} of {value}.",
    "{verb} the {noun} for {value}",
    "{verb} the {noun} of the {thing} {value}.",
    "tell me the {noun} of {value}.",
    "which {noun} does {value} have?",
    "I need the {noun} of {value}.",
    "please {verb} the {noun} of {value}.",
    "do you know the {noun} of {value}?",
    "use a tool to {verb} the {noun} of {value}.",
    "with the tool, {verb} a {value} {noun}.",
    "the {thing} is {value}. {verb} the {noun}.",
    "I am in {value}. What is the {noun} here?",
    "{noun} of {value}?",
    "can you {verb} the {noun} of {value} for me?",
)
LOOK_UP_DESCRIPTIONS = (
    "{verb} the {noun} of a {thing}.",
    "{verb} the {noun} for a given {thing}.",
    "{verb} {noun} at a {thing}.",
    "{verb} a {noun} in a particular {thing}.",
    "Returns the {noun} of the {thing}.",
    "Tool for the {noun} of any {thing}",
    "The {noun}.",
)


def look_up(draw: Draw, noun: str | None = None, thing: str | None = None) -> Tool:
    """One text: the something of a place, a person, a thing."""
    verb, noun = draw.choice(LOOK_UP), noun or draw_noun(draw)
    parameter = draw_parameter(draw, {"type": "string"}, name=thing)
    words = {"verb": verb, "noun": spoken(noun), "thing": parameter.spoken}

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        value = text_value(draw)
        arguments = {parameter.name: value.text}
        shown = value.shown(draw)
        return question_for(
            draw, tool, arguments, lambda: draw.wording(LOOK_UP_WORDINGS).format(value=shown, **words)
        ), arguments

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, LOOK_UP_DESCRIPTIONS, **words), [parameter], asks
    )


def of_number(draw: Draw) -> Tool:
    """One integer."""
    verb, noun = draw.choice(LOOK_UP), draw_noun(draw)
    parameter = draw_parameter(draw, integer_schema(draw))
    words = {"verb": verb, "noun": spoken(noun), "thing": parameter.spoken}
    wordings = (
        "what is the {noun} of {value}?",
        "{verb} the {noun} of {value}.",
        "{verb} the {noun} for {value}",
        "{verb} {noun} number {value}.",
        "what is the {noun} for {thing} {value}?",
        "tell me the {noun} of {value}.",
        "please {verb} the {noun} with {thing} {value}.",
        "{value} is the {thing}. What is the {noun}?",
        "I need the {noun} of {value}.",
    )
    sentences = (
        *("{verb} the {noun} of a number.", "{verb} the {noun} for a {thing}.", "Apply the {noun} to a {thing}."),
        *("{verb} a {noun}.", "Returns the {noun} of the {thing}."),
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        value = integer(draw)
        arguments = {parameter.name: value}
        return (
            question_for(draw, tool, arguments, lambda: draw.wording(wordings).format(value=value, **words), 0.45),
            arguments,
        )

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), [parameter], asks
    )


def of_nothing(draw: Draw) -> Tool:
    """No parameters at all."""
    verb, noun = draw.choice(LOOK_UP), draw_noun(draw)
    words = {"verb": verb, "noun": spoken(noun)}
    wordings = (
        *("what is the {noun}?", "{verb} the {noun}.", "tell me the {noun}.", "what is the {noun} now?"),
        *("please {verb} the {noun}.", "I need the {noun}.", "do you know the {noun}?", "{noun}, please."),
        "can you {verb} the {noun}?",
    )
    sentences = ("{verb} the {noun}.", "{verb} the current {noun}.", "Returns a {noun}.", "{verb} a {noun}.")

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        return question_for(draw, tool, {}, lambda: draw.wording(wordings).format(**words), 0.4), {}

    return build_tool(draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), [], asks)


def of_name_and_text(draw: Draw) -> Tool:
    """Something with a name and a text about it."""
    verb, noun = draw.choice(CHANGE), draw_noun(draw)
    first = draw.choice((f"{noun}_name", "name", "title", f"{noun}_id", None, None))
    second = draw.choice(("description", "note", "text", "comment", "details", None))
    parameters = [draw_parameter(draw, {"type": "string"}, name=name) for name in (first, second)]
    words = {"verb": verb, "noun": spoken(noun), "p1": parameters[0].spoken, "p2": parameters[1].spoken}
    names = (
        *("{verb} a {noun} called {quoted}", "{verb} a {noun} named {quoted}", "{verb} the {noun} {quoted}"),
        *(
            "{verb} a new {noun}, {quoted}",
            "please {verb} a {noun} with the {p1} {quoted}",
            "{verb} {quoted} as a {noun}",
        ),
    )
    texts = (
        *(" - {text}", " - {text}.", ", {text}", ": {text}", " with the {p2} {quotedtext}.", ". It is {text}."),
        *(", {p2}: {text}", " described as {quotedtext}", " ({text})"),
    )
    sentences = (
        *(
            "{verb} a {noun}.",
            "{verb} a {noun} with a {p1} and a {p2}.",
            "Tool to {verb} a {noun}.",
            "{verb} a new {noun}.",
        ),
        "{verb} a {noun}.\n\nArgs:\n    {p1}: The {p1} of the {noun}.\n    {p2}: The {p2}.",
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        name, text = text_value(draw), draw.plain_phrase()
        arguments = {parameters[0].name: name.text, parameters[1].name: text}

        def natural() -> str:
            shown = quoted(name.text, draw.choice("'\"")) if draw.chance(0.8) else name.shown(draw)
            gloss = f" ({draw.phrase(2).strip('.!?').title()})" if draw.chance(0.25) else ""
            told = draw.wording(names).format(quoted=shown, **words) + gloss
            return told + draw.choice(texts).format(text=text, quotedtext=quoted(text, draw.choice("'\"")), **words)

        return question_for(draw, tool, arguments, natural, tail=False), arguments

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), parameters, asks
    )


def of_text_and_number(draw: Draw) -> Tool:
    """A text and a count, in either order."""
    verb, noun = draw.choice(CHANGE), draw_noun(draw)
    text = draw_parameter(draw, {"type": "string"})
    number = draw_parameter(draw, integer_schema(draw))
    parameters = [text, number] if draw.chance(0.7) else [number, text]
    words = {"verb": verb, "noun": spoken(noun), "p1": text.spoken, "p2": number.spoken}
    wordings = (
        "{verb} a {noun} in {value} for {count} {p2}.",
        "{verb} {count} {p2} of the {noun} {value}.",
        "{verb} the {noun} of {value} with {count} {p2}.",
        "{verb} a {noun} for {value}, {p2} {count}.",
        "I want a {noun} in {value} for {count} {p2}.",
        "{verb} {count} {noun} for {value}.",
        "please {verb} the {noun}: {value}, {count} {p2}.",
        "{value} for {count} {p2}: {verb} a {noun}.",
        "can you {verb} a {noun} in {value} for {count} {p2}?",
    )
    sentences = (
        *("{verb} a {noun}.", "{verb} a {noun} in a {p1} for some {p2}.", "{verb} {p2} of a {noun} for a {p1}."),
        "Tool to {verb} a {noun}",
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        value, count = text_value(draw), integer(draw)
        values = {text.name: value.text, number.name: count}
        arguments = {each.name: values[each.name] for each in parameters}
        shown = value.shown(draw)
        return (
            question_for(
                draw, tool, arguments, lambda: draw.wording(wordings).format(value=shown, count=count, **words)
            ),
            arguments,
        )

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), parameters, asks
    )


def of_named_values(draw: Draw) -> Tool:
    """One to three values of any type, given by name; some may be left out."""
    verb, noun = draw.choice(CHANGE + LOOK_UP), draw_noun(draw)
    parameters: list[Parameter] = []
    for _ in range(draw.rng.choices((1, 2, 3), (2, 5, 4))[0]):
        required = not parameters or draw.chance(0.7)
        schema: dict[str, Any] = draw.choice(
            ({"type": "string"}, {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"})
        )
        if not required:
            missing = {"string": draw.noun(), "integer": 1, "number": 0.5, "boolean": False}[schema["type"]]
            schema = (
                {"anyOf": [schema, {"type": "null"}], "default": None}
                if draw.chance(0.3)
                else {"default": missing, **schema}
            )
        parameters.append(draw_parameter(draw, schema, required=required))
    words = {"verb": verb, "noun": spoken(noun)}
    sentences = ("{verb} a {noun}.", "{verb} the {noun}.", "Tool to {verb} a {noun}.", "The {noun}.")
    wordings = (
        *("{verb} the {noun} with {named}.", "{verb} a {noun}: {named}.", "{verb} a {noun}, {named}"),
        *("please {verb} a {noun} with {named}.", "{noun} with {named}, please.", "{named}. {verb} the {noun}."),
        "can you {verb} a {noun} with {named}?",
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        arguments = {
            each.name: _value_of(draw, each.schema) for each in parameters if each.required or draw.chance(0.5)
        }
        return (
            question_for(
                draw, tool, arguments, lambda: draw.wording(wordings).format(named=named(draw, arguments), **words)
            ),
            arguments,
        )

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), parameters, asks
    )


def _value_of(draw: Draw, schema: dict[str, Any]) -> Any:
    """Draw a value of a type."""
    kind = schema.get("type") or schema["anyOf"][0]["type"]
    if kind == "integer":
        return integer(draw)
    if kind == "number":
        return round(integer(draw) / 10, 1)
    if kind == "boolean":
        return draw.chance(0.5)
    return text_value(draw).text


def of_text_and_choice(draw: Draw) -> Tool:
    """A text, and one of a few words, or none."""
    verb, noun = draw.choice(LOOK_UP), draw_noun(draw)
    options = list(dict.fromkeys(draw.noun() for _ in range(draw.rng.randint(2, 3))))
    required = draw.chance(0.4)
    schema: dict[str, Any] = {"enum": options, "type": "string"}
    text = draw_parameter(draw, {"type": "string"})
    choice = draw_parameter(draw, schema if required else {"default": options[0], **schema}, required=required)
    words = {"verb": verb, "noun": spoken(noun), "thing": text.spoken}
    wordings = (
        *("what is the {noun} of {value}{option}?", "{verb} the {noun} of {value}{option}."),
        *("{verb} the {noun} in {value}{option}.", "tell me the {noun} for {value}{option}."),
        "I need the {noun} of {value}{option}.",
    )
    ends = (
        " in {}",
        " as {}",
        " ({})",
        ", {}",
        " with {}",
        f" with the {choice.spoken} {{}}",
        f", {choice.spoken} {{}}",
    )

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        value = text_value(draw)
        arguments = {text.name: value.text}
        shown, option = value.shown(draw), ""
        if required or draw.chance(0.6):
            arguments[choice.name] = draw.choice(options)
            option = draw.choice(ends).format(arguments[choice.name])

        def natural() -> str:
            return draw.wording(wordings).format(value=shown, option=option, **words)

        return question_for(draw, tool, arguments, natural, 0.2), arguments

    return build_tool(
        draw,
        function_name(draw, verb, noun),
        draw_description(draw, LOOK_UP_DESCRIPTIONS, **words),
        [text, choice],
        asks,
    )


def of_list(draw: Draw) -> Tool:
    """Several words, or several integers."""
    verb, noun = draw.choice(LOOK_UP), draw_noun(draw)
    numbers = draw.chance(0.35)
    parameter = draw_parameter(draw, {"items": {"type": "integer" if numbers else "string"}, "type": "array"})
    words = {"verb": verb, "noun": spoken(noun), "thing": parameter.spoken}
    wordings = (
        *("{verb} the {noun} of {values}.", "what is the {noun} of {values}?", "{verb} the {noun} for {values}."),
        *("{verb} the {noun} with the {thing} {values}.", "please {verb} the {noun} of {values}."),
    )
    sentences = ("{verb} the {noun} of some {thing}.", "{verb} the {noun}.", "{verb} {noun} for several {thing}.")

    def asks(draw: Draw, tool: Tool) -> tuple[str, Arguments]:
        count = draw.rng.randint(1, 4)
        values = [integer(draw) if numbers else bare(draw) for _ in range(count)]
        arguments = {parameter.name: values}
        shown = joined([str(value) for value in values])
        return question_for(
            draw, tool, arguments, lambda: draw.wording(wordings).format(values=shown, **words), 0.15
        ), arguments

    return build_tool(
        draw, function_name(draw, verb, noun), draw_description(draw, sentences, **words), [parameter], asks
    )


def of_record(draw: Draw) -> Tool:
    """A form to fill from a text: what structured output asks for."""
    noun = draw_noun(draw)
    parameters = [
        draw_parameter(draw, {"type": draw.choice(("string", "string", "integer"))})
        for _ in range(draw.rng.randint(1, 3))
    ]
    name = noun.title().replace("_", "") if draw.chance(0.6) else noun
    words = {"noun": spoken(noun)}
    sentences = ("A {noun}.", "Information about a {noun}.", "The {noun} in a text.", "{noun}")
    wordings = (
        "{told}",
        "{told}",
        "Extract the {noun}: {told}",
        "Fill in a {noun}. {told}",
        "Note this {noun}: {told}",
    )

    def asks(draw: Draw, _: Tool) -> tuple[str, Arguments]:
        arguments = {each.name: _value_of(draw, each.schema) for each in parameters}
        return draw.wording(wordings).format(told=told(draw, arguments, words["noun"]), **words), arguments

    return build_tool(draw, name, draw_description(draw, sentences, **words), parameters, asks)


KINDS: tuple[tuple[Callable[[Draw], Tool], int], ...] = (
    (look_up, 26),
    (of_number, 10),
    (of_nothing, 8),
    (of_name_and_text, 14),
    (of_text_and_number, 13),
    (of_named_values, 18),
    (of_text_and_choice, 9),
    (of_list, 8),
    (of_operation, 8),
    (of_record, 5),
)


def draw_tool(draw: Draw) -> Tool:
    """Draw a tool of any kind."""
    kinds, shares = zip(*KINDS, strict=True)
    kind: Callable[[Draw], Tool] = draw.rng.choices(kinds, shares)[0]
    return kind(draw)
