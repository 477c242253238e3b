"""Text of strangers is shown without harm, and lines end between words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.cli.plain_text import WordWrap, harmless, json_line


@given(st.text())
def test_no_control_character_is_left(text: str) -> None:
    for shown in (harmless(text), json_line(text)):
        assert not [character for character in shown if ord(character) < 32 and character not in "\n\t"]
        assert not [character for character in shown if 0x7F <= ord(character) < 0xA0]
        assert not {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"} & {*shown}


@given(st.text(alphabet=st.characters()), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_json_keeps_the_text_in_any_encoding(text: str, encoding: str) -> None:
    line = json_line({"text": text}, encoding)
    assert json.loads(line.encode(encoding).decode(encoding)) == {"text": text}
    assert "\n" not in line


def test_half_a_character_is_an_escape() -> None:
    assert json_line("\ud800") == '"\\ud800"'


def wrapped(*pieces: str, width: int = 12) -> str:
    wrap = WordWrap(lambda: width)
    return "".join(map(wrap.add, pieces)) + wrap.end()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("three little words", "three little\nwords"),
        ("    an indented line", "    an\nindented\nline"),
        ("one\n\ntwo \n three", "one\n\ntwo\n three"),
        ("averyveryverylong word", "averyveryverylong word"),
        ("a averyveryverylong word", "a\naveryveryverylong word"),
        ("exactlytwelv word", "exactlytwelv\nword"),
        ("花の木 花の木の花", "花の木 花の\n木の花"),
        ("a\tb", "a    b"),
        ("", ""),
    ],
)
def test_lines_end_between_words_however_the_text_comes(text: str, shown: str) -> None:
    assert wrapped(text) == shown
    assert wrapped(*text) == shown


@given(st.text(alphabet="ab \n"), st.integers(1, 9))
def test_wrapping_changes_nothing_but_spaces(text: str, width: int) -> None:
    assert wrapped(text, width=width).split() == text.split()


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert json_line({"a": [float("inf"), 1.5, {"b": float("nan")}], "c": -float("inf")}) == (
        '{"a": [null, 1.5, {"b": null}], "c": null}'
    )
