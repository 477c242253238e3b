"""What a grammar allows and no parser reads: numbers that overflow, and nesting without end."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_session import answered, text

from langchain_petals.engine.constraints.readable_json import MOST_CHARACTERS, MOST_DEPTH, Reading
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.grammars import Constraint
from langchain_petals.grammars.builders import json_grammar, regex_grammar

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e99, 1e99) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def read(*parts: bytes) -> Reading | None:
    reading: Reading | None = Reading()
    for part in parts:
        reading = None if reading is None else reading.after(part)
    return reading


@given(VALUES, st.data())
def test_what_can_be_read_is_read_to_its_end_in_whatever_pieces(value: Any, data: st.DataObject) -> None:
    whole = json.dumps(value, ensure_ascii=False).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    end = read(*pieces, b"\n")
    assert end == Reading()


@pytest.mark.parametrize("number", ["1e100", "-2.5E+0308", "1e99999", "9" * (MOST_CHARACTERS + 1)])
def test_numbers_that_may_overflow_cannot(number: str) -> None:
    assert read(b'{"a": ', number.encode()) is None
    assert read(b'{"a": ', *(bytes([byte]) for byte in number.encode())) is None
    assert read(b'{"a": "', number.encode()) is not None


@pytest.mark.parametrize("number", ["1e99", "1e-999", "1e+0099", "9" * MOST_CHARACTERS])
def test_numbers_that_a_double_holds_can(number: str) -> None:
    assert read(b"[", number.encode()) is not None
    assert math.isfinite(float(number))


def test_depth_is_bounded_and_what_was_closed_does_not_count() -> None:
    assert read(b"[" * MOST_DEPTH) is not None
    assert read(b"[" * MOST_DEPTH, b"{") is None
    assert read(b"[" * MOST_DEPTH, b']}, {"a": [') is not None
    assert read(b"[" * MOST_DEPTH, b'"[[[[\\"[[') is not None


def answer(tokenizer: PreTrainedTokenizerFast, grammar: str, said: str, budget: int = 1500) -> str:
    """Return what becomes of an answer that the model wants to be `said`."""
    request = Request([40], budget, Sampling(greedy=True), constraint=Constraint(grammar))
    return text(answered(tokenizer, request, said=[*said.encode()]))


@pytest.mark.parametrize("said", ["3e777", "-" + "7" * 400])
def test_number_that_goes_on_is_one_in_the_end(byte_tokenizer: PreTrainedTokenizerFast, said: str) -> None:
    written = json.loads(answer(byte_tokenizer, json_grammar({"type": "number"}), said))
    assert math.isfinite(float(written))


@pytest.mark.parametrize("budget", range(8, 20))
def test_number_that_the_budget_ends_can_be_read(byte_tokenizer: PreTrainedTokenizerFast, budget: int) -> None:
    grammar = json_grammar({"type": "array", "items": {"type": "number"}})
    # more than there is room for, so that the budget chooses, where one more digit of the exponent would be too many
    for said in ("[" + "2e4" * 9, *("[" + "1," * each + "2e46111111" for each in range(8))):
        written = json.loads(answer(byte_tokenizer, grammar, said, budget))
        assert all(map(math.isfinite, written))


def test_nesting_that_goes_on_can_be_parsed_in_the_end(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    json.loads(answer(byte_tokenizer, json_grammar({"type": "array"}), "[" * 1200))


def test_what_is_no_json_is_left_alone(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    assert answer(byte_tokenizer, regex_grammar("[1e]{300}"), "1e" * 150) == "1e" * 150
