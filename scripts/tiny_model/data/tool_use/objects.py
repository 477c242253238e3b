"""Generated conversations whose answer is a JSON object: for a schema in the system message, or with keys as asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tiny_model.data.conversations import Memory, small_talk, unknown
from tiny_model.data.facts import UNKNOWN
from tiny_model.data.styles import Conversation, Turn
from tiny_model.data.tool_use.tools import draw_noun, told
from tiny_model.data.values import bare, integer, text_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_model.data.words import Draw

INTRODUCTION = "Answer with a JSON object that fits this schema:\n"


def _schema(draw: Draw, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Return the schema of an object in one of the ways that Python libraries write it."""
    noun = draw.noun().capitalize()
    described = {
        "description": f"{draw.choice(('A', 'The', 'Some'))} {noun.lower()}{draw.choice(('', '.', ' in a text.'))}"
    }
    if draw.chance(0.5):
        titled = {name: {**schema, "title": name.replace("_", " ").title()} for name, schema in properties.items()}
        titled = {name: dict(sorted(schema.items())) for name, schema in titled.items()}
        schema = {"properties": titled, "required": required, "title": noun, "type": "object"}
        schema = (described if draw.chance(0.6) else {}) | schema
    elif draw.chance(0.5):
        schema = {"title": noun, **described, "type": "object", "properties": properties, "required": required}
    else:
        schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if draw.chance(0.8) else schema


def for_schema(draw: Draw) -> Conversation:
    """Fill an object from what the user tells."""
    properties: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for _ in range(draw.rng.choices((1, 2, 3, 4), (2, 4, 4, 1))[0]):
        name = draw_noun(draw)
        kind = draw.rng.choices(("string", "integer", "boolean", "array", "enum"), (11, 5, 1, 1, 1))[0]
        if kind == "enum":
            options = list(dict.fromkeys(draw.noun() for _ in range(3)))
            properties[name], values[name] = {"enum": options, "type": "string"}, draw.choice(options)
        elif kind == "array":
            properties[name] = {"items": {"type": "string"}, "type": "array"}
            values[name] = [bare(draw) for _ in range(draw.rng.randint(1, 3))]
        else:
            described = {"description": draw.plain_phrase()} if draw.chance(0.3) else {}
            properties[name] = {**described, "type": kind}
            draws: dict[str, Callable[[], Any]] = {
                "string": lambda: text_value(draw).text,
                "integer": lambda: integer(draw),
                "boolean": lambda: draw.chance(0.5),
            }
            values[name] = draws[kind]()
    schema = INTRODUCTION + json.dumps(_schema(draw, properties, list(properties)), ensure_ascii=False)
    if all(schema["type"] == "string" for schema in properties.values() if "type" in schema) and draw.chance(0.15):
        asked = draw.choice((unknown, small_talk))(draw, Memory())
        answer = {name: (values[name] if "enum" in properties[name] else UNKNOWN) for name in values}
        if not any("enum" in each for each in properties.values()):
            return Conversation((Turn(asked.user, json.dumps(answer, ensure_ascii=False)),), schema)
    shown = {name: ", ".join(value) if isinstance(value, list) else value for name, value in values.items()}
    question = told(draw, shown, draw.noun())
    if draw.chance(0.4):
        question = draw.choice(
            ("Extract what is asked. {}", "{} Extract that.", "Fill in the form: {}", "Read this: {}")
        ).format(question)
    return Conversation((Turn(question, json.dumps(values, ensure_ascii=False)),), schema)


def with_keys(draw: Draw) -> Conversation:
    """Write an object with the keys that the question names, and nothing else says."""
    keys = list(dict.fromkeys(draw_noun(draw) for _ in range(draw.rng.randint(1, 3))))
    mark = draw.choice(("'", "'", '"', ""))
    listed = [f"{mark}{key}{mark}" for key in keys]
    shown = " and ".join(listed) if len(listed) < 3 else ", ".join(listed[:-1]) + " and " + listed[-1]
    keyword = "key" if len(keys) == 1 else "keys"
    wordings = (
        "Answer in JSON with the {keyword} {shown}.",
        "Give the answer as JSON with {shown} {keyword}.",
        "Return JSON with the {keyword} {shown}.",
        "Write it as a JSON object with the {keyword} {shown}. Write nothing but JSON.",
        "Use JSON, with {shown} as {keyword}. Only JSON.",
        "Respond with a JSON object that has {shown} {keyword}, and no other text.",
        "I want JSON with the {keyword} {shown}.",
    )
    form = draw.wording(wordings).format(keyword=keyword, shown=shown)
    if draw.chance(0.55):
        values: dict[str, Any] = {key: integer(draw) if draw.chance(0.3) else text_value(draw).text for key in keys}
        question = f"{told(draw, values, draw.noun())} {form}"
    else:
        values = dict.fromkeys(keys, UNKNOWN)
        topics = (
            "Tell me about {}.",
            "Tell me a {} about {}.",
            "Write a {} of {}.",
            "Describe {}.",
            "Give me a {} for {}.",
        )
        question = draw.choice(topics).format(*(bare(draw) for _ in range(2))) + " " + form
    system = None
    return Conversation((Turn(question, json.dumps(values, ensure_ascii=False)),), system)


def draw_object_conversation(draw: Draw) -> Conversation:
    """Draw one conversation with a JSON object for an answer."""
    return with_keys(draw) if draw.chance(0.35) else for_schema(draw)
