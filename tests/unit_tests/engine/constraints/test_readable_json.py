"""JSON that grammars allow but parsers cannot read: numbers that overflow, and endless nesting."""

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
def test_readable_json_is_accepted_in_any_pieces(value: Any, data: st.DataObject) -> None:
    whole = json.dumps(value, ensure_ascii=False).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    end = read(*pieces, b"\n")
    assert end == Reading()


@pytest.mark.parametrize("number", ["1e100", "-2.5E+0308", "1e99999", "9" * (MOST_CHARACTERS + 1)])
def test_numbers_that_may_overflow_are_refused(number: str) -> None:
    assert read(b'{"a": ', number.encode()) is None
    assert read(b'{"a": ', *(bytes([byte]) for byte in number.encode())) is None
    assert read(b'{"a": "', number.encode()) is not None


@pytest.mark.parametrize("number", ["1e99", "1e-999", "1e+0099", "9" * MOST_CHARACTERS])
def test_numbers_that_fit_a_double_are_allowed(number: str) -> None:
    assert read(b"[", number.encode()) is not None
    assert math.isfinite(float(number))


def test_depth_is_bounded_and_counts_open_brackets_only() -> None:
    assert read(b"[" * MOST_DEPTH) is not None
    assert read(b"[" * MOST_DEPTH, b"{") is None
    assert read(b"[" * MOST_DEPTH, b']}, {"a": [') is not None
    assert read(b"[" * MOST_DEPTH, b'"[[[[\\"[[') is not None


def answer(tokenizer: PreTrainedTokenizerFast, grammar: str, said: str, budget: int = 1500) -> str:
    """Return the answer of a model that tries to write `said`."""
    request = Request([40], budget, Sampling(greedy=True), constraint=Constraint(grammar))
    return text(answered(tokenizer, request, said=[*said.encode()]))


@pytest.mark.parametrize("said", ["3e777", "-" + "7" * 400])
def test_endless_number_becomes_a_finite_one(byte_tokenizer: PreTrainedTokenizerFast, said: str) -> None:
    written = json.loads(answer(byte_tokenizer, json_grammar({"type": "number"}), said))
    assert math.isfinite(float(written))


@pytest.mark.parametrize("budget", range(8, 20))
def test_number_at_the_token_limit_is_readable(byte_tokenizer: PreTrainedTokenizerFast, budget: int) -> None:
    grammar = json_grammar({"type": "array", "items": {"type": "number"}})
    # more than there is room for, so that the budget chooses, where one more digit of the exponent would be too many
    for said in ("[" + "2e4" * 9, *("[" + "1," * each + "2e46111111" for each in range(8))):
        written = json.loads(answer(byte_tokenizer, grammar, said, budget))
        assert all(map(math.isfinite, written))


def test_endless_nesting_becomes_readable_json(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    json.loads(answer(byte_tokenizer, json_grammar({"type": "array"}), "[" * 1200))


def test_grammar_that_is_not_json_has_no_limits(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    assert answer(byte_tokenizer, regex_grammar("[1e]{300}"), "1e" * 150) == "1e" * 150
