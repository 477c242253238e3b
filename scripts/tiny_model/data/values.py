"""Values of calls and JSON objects, and how a question shows them."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiny_model.data.words import Draw


@dataclass(frozen=True)
class Value:
    """A text, and whether it needs quotes to stand out in a sentence."""

    text: str
    needs_quotes: bool = False

    def shown(self, draw: Draw) -> str:
        """Return the text as a question shows it."""
        if self.needs_quotes or draw.chance(0.2):
            return quoted(self.text, draw.choice("'\""))
        return self.text


def quoted(text: str, mark: str) -> str:
    """Put a text in quotes."""
    return f"{mark}{text}{mark}"


def text_value(draw: Draw) -> Value:
    """Draw a text: a name, a word, a code, an address, a phrase, something in another script."""
    kind = draw.rng.random()
    if kind < 0.25:
        return Value(draw.name() if kind < 0.14 else f"{draw.name().title()} {draw.name().title()}")
    if kind < 0.31:
        region = "".join(draw.rng.choices(string.ascii_uppercase, k=2))
        return Value(
            f"{draw.word().title()} {draw.word().title()}, {region}" if draw.chance(0.6) else f"{draw.name()}, {region}"
        )
    if kind < 0.54:
        return Value(draw.word() if kind < 0.44 else draw.code() if kind < 0.50 else _address(draw))
    if kind < 0.62:
        return Value(draw.plain_phrase(), needs_quotes=True)
    return Value(draw.other_script())


def _address(draw: Draw) -> str:
    """Draw a date, a mail address, a link or a path."""
    kind = draw.rng.random()
    if kind < 0.4:
        return f"{draw.rng.randint(1900, 2099)}-{draw.rng.randint(1, 12):02}-{draw.rng.randint(1, 28):02}"
    if kind < 0.6:
        return f"{draw.word()}@{draw.word()}.com"
    if kind < 0.8:
        return f"https://{draw.word()}.org/{draw.word()}"
    return f"/{draw.word()}/{draw.word()}.txt"


def bare(draw: Draw) -> str:
    """Draw one word without spaces, in any script."""
    kind = draw.rng.random()
    if kind < 0.5:
        return draw.word()
    return draw.word().capitalize() if kind < 0.75 else draw.script_word()


def integer(draw: Draw, *, signed: bool = True, digits: int = 5) -> int:
    """Draw an integer, negative some of the time."""
    number = int(draw.number(digits))
    return -number if signed and draw.chance(0.12) else number


def written_value(draw: Draw, value: Any) -> str:
    """Write a value of a call into a sentence."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return quoted(value, draw.choice("'\"")) if " " in value or draw.chance(0.25) else value
