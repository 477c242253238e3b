"""Positions in JSON texts."""

from __future__ import annotations

import functools

import pytest

from langchain_petals.json_scanner import JsonPosition


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", JsonPosition()),
        ('{"a": [1, {}', JsonPosition(2)),
        ('{"a": [1, {}]} ', JsonPosition()),
        ('["[{', JsonPosition(1, in_string=True)),
        ('["\\\\"', JsonPosition(1)),
        ('["\\', JsonPosition(1, in_string=True, escaped=True)),
        ('["\\"]', JsonPosition(1, in_string=True)),
        ("]", JsonPosition(-1)),
    ],
)
def test_position_counts_brackets_outside_of_strings(text: str, position: JsonPosition) -> None:
    assert functools.reduce(JsonPosition.after, text, JsonPosition()) == position
