"""Hints from the regular expressions of a grammar."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_petals.engine.constraints import patterns
from langchain_petals.engine.constraints.patterns import Hints, endings, hints
from langchain_petals.grammars.builders import json_grammar, lark_grammar, regex_grammar

if TYPE_CHECKING:
    from types import FrameType


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", {""}),
        ("abc", {"", "c", "bc", "abc"}),
        (r"^.*\.(jpe?g|png)$", {"", "g", "eg", "pg", "jpg", "ng", "png", ".jpg", "0.jpg"}),
        ("a*b+c?", {"", "c", "b", "ab"}),
        ("(ab){2}", {"", "b", "ab", "bab", "abab"}),
        (r"[^0a]\D\s[\W_]", {"", "!", " !", "a !", "Aa !"}),
        ("[é-ü]", {"", "é"}),
        (r"(?<n>\p{Lu})\p{L}\P{L}\z", {"", "_", "a_", "Aa_"}),
        (r"\\p", {"", "p", r"\p"}),
        ("(", set()),
        (r"\q", set()),
    ],
)
def test_endings_are_the_shortest_from_each_position(expression: str, expected: set[str]) -> None:
    assert endings(expression) == expected


PIECES = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\.", "x{2}"]),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["*", "+", "?", "{2,3}"])),
    ),
    max_leaves=8,
)


@given(PIECES, st.data())
def test_each_beginning_of_a_match_has_an_ending(expression: str, data: st.DataObject) -> None:
    matching = data.draw(st.from_regex(expression, fullmatch=True, alphabet="ab.x01"))
    assume(len(matching) <= 12)  # the time that Python's matcher takes for repeated repetitions doubles with each one
    begun = matching[: data.draw(st.integers(0, len(matching)))]
    shortest = min((each for each in endings(expression) if re.fullmatch(expression, begun + each)), key=len)
    assert len(shortest) <= len(matching) - len(begun)


@pytest.mark.parametrize(
    "expression",
    ["[ab]{5000}", "((a{50}){50}){50}", "((a?){1000}){1000}", "(" * 300 + "a" + ")" * 300, "(a|b)" * 3000],
    ids=lambda each: each[:20],
)
def test_long_expressions_are_not_walked_to_their_ends(expression: str) -> None:
    steps = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal steps
        steps += event == "call" and frame.f_code.co_filename == patterns.__file__

    sys.setprofile(count)
    try:
        found = endings(expression)
    finally:
        sys.setprofile(None)
    assert len(found) <= 210
    assert steps < 3000


def test_hints_of_each_kind_of_grammar() -> None:
    assert hints(json_grammar({"items": {"type": "string", "pattern": 'é"$'}})) == Hints(
        strings=[b'\\""', 'é\\""'.encode()], texts=[], parts=['é\\"'.encode()]
    )
    assert hints(regex_grammar("a/b")) == Hints([], [b"b", b"/b", b"a/b"], [b"a/b"])
    lark = lark_grammar('start: NAME "; " %json {"enum": ["/x/"]} // /y/\nNAME: /[a-c]+/')
    assert hints(lark) == Hints([], [], [b"a", b"; "])
    assert hints(json_grammar({"type": "string"})) == Hints([], [], [])
