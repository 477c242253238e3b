"""Reasoning is split from the answer, for any pieces of the text."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.chat.reasoning import ReasoningSplitter

if TYPE_CHECKING:
    from collections.abc import Sequence


def split(pieces: list[str], *, started: bool = False, ends: Sequence[str] = ()) -> tuple[str, str]:
    splitter = ReasoningSplitter(started=started, ends=ends)
    parts = [splitter.add(piece) for piece in pieces] + [splitter.flush()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ("", "plain")),
        (" plain ", ("", " plain ")),
        ("", ("", "")),
        ("<", ("", "<")),
        ("<thin air>", ("", "<thin air>")),
        ("<think>a b</think>c", ("a b", "c")),
        ("\n<think>\na  b\n</think>\n\nc \n", ("a  b", "c \n")),
        ("<think></think>c", ("", "c")),
        ("<think>cut off", ("cut off", "")),
        ("<think>a </thin", ("a </thin", "")),
        ("<think>a</think>b<think>c</think>", ("a", "b<think>c</think>")),
        ("To think, write <think>.", ("", "To think, write <think>.")),
    ],
)
def test_only_a_marker_at_the_beginning_starts_reasoning(text: str, expected: tuple[str, str]) -> None:
    assert split([text]) == expected
    assert split(list(text)) == expected


def test_reasoning_that_the_prompt_started_is_split_off() -> None:
    assert split(list("\na\n</think>\nb"), started=True) == ("a", "b")
    assert split(["no end"], started=True) == ("no end", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a <call>b", ("a", "<call>b")),
        ("<think><call></think>b", ("", "<call></think>b")),
        ("<think>a</think><call>b", ("a", "<call>b")),
        ("<think>a <cal</think>b", ("a <cal", "b")),
        ("<think>a<ca", ("a<ca", "")),
        ("<call><think>", ("", "<call><think>")),
    ],
)
def test_the_marker_of_a_call_ends_the_reasoning(text: str, expected: tuple[str, str]) -> None:
    assert split([text], ends=["[CALL]", "<call>"]) == expected
    assert split(list(text), ends=["[CALL]", "<call>"]) == expected


@given(text=st.text("<think/>a \n", max_size=40), cuts=st.lists(st.integers(0, 40)), started=st.booleans())
def test_the_split_does_not_depend_on_the_pieces(text: str, cuts: list[int], *, started: bool) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(borders)]
    assert split(pieces, started=started) == split([text], started=started)
