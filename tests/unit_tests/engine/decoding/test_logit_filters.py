"""Each combination of sampling options keeps the tokens, and draws those, that transformers keeps and draws."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import filter_comparison
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from langchain_petals.engine.decoding.logit_filters import LogitFilters
from langchain_petals.engine.request import Sampling
from langchain_petals.swarm.interpreter import servers_python

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOCABULARY = 48


class Comparison:
    """A process of `filter_comparison`.

    Args:
        python: The interpreter that runs it.
    """

    def __init__(self, python: str) -> None:
        command = [python, "-W", "ignore", filter_comparison.__file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        self.version: str = self._ask(filter_comparison.VERSION)

    def _ask(self, line: str) -> Any:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def run(self, case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return this package's result, and that of transformers."""
        both = self._ask(json.dumps(case))
        return both["ours"], both["theirs"]

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="module")
def newest() -> Iterator[Comparison]:
    """Return a comparison with the transformers of this environment."""
    with closing(Comparison(sys.executable)) as comparison:
        yield comparison


@pytest.fixture(scope="module")
def servers() -> Iterator[Comparison]:
    """Return a comparison with the transformers that petals' servers need."""
    with closing(Comparison(str(servers_python()))) as comparison:
        yield comparison


tokens = st.integers(0, _VOCABULARY - 1)
fractions = st.floats(0.01, 1) | st.sampled_from([0.5, 0.9, 0.999999])
samplings = st.builds(
    Sampling,
    temperature=st.just(1.0) | st.floats(0.05, 20),
    top_p=st.just(1.0) | fractions,
    top_k=st.none() | st.integers(1, _VOCABULARY + 2),
    typical_p=st.none() | fractions,
    repetition_penalty=st.just(1.0) | st.floats(0.2, 5),
    no_repeat_ngram_size=st.integers(0, 3),
    bad_words_ids=st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), max_size=5).map(tuple),
    min_new_tokens=st.integers(0, 8),
    greedy=st.booleans(),
)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a row so far, logits for its next token, and options."""
    few = st.integers(0, 5)  # so that n-grams come again
    # shorter texts are another test, since transformers before 5 forbids no word that is longer than the text
    ids = draw(st.lists(few | tokens, min_size=3, max_size=14))
    return {
        "ids": ids,
        "prompt_length": draw(st.integers(1, len(ids))),
        "end_tokens": draw(st.lists(tokens, max_size=3, unique=True)),
        "least_kept": draw(st.just(1) | st.integers(1, 4)),
        "vocabulary": _VOCABULARY,
        "seed": draw(st.integers(0, 2**40)),
        "scale": draw(st.sampled_from([0.1, 1.0, 3.0, 30.0])),
        "coarse": draw(st.booleans()),
        "options": {name: value for name, value in asdict(draw(samplings)).items() if name != "seed"},
    }


@given(case=cases())
def test_kept_and_drawn_tokens_equal_those_of_transformers(newest: Comparison, case: dict[str, Any]) -> None:
    ours, theirs = newest.run(case)
    assert ours == theirs


@given(case=cases())
def test_kept_and_drawn_tokens_equal_those_of_the_servers_transformers(
    servers: Comparison, case: dict[str, Any]
) -> None:
    assert servers.version.startswith("4.")
    ours, theirs = servers.run(case)
    assert ours == theirs


@given(case=cases(), min_p=fractions)
def test_tokens_kept_by_min_p_equal_those_of_transformers(
    newest: Comparison, case: dict[str, Any], min_p: float
) -> None:
    """Transformers has had it since 4.39, so the servers' may not know it."""
    case["options"]["min_p"] = min_p
    ours, theirs = newest.run(case)
    assert ours == theirs


@given(case=cases(), ids=st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_words_that_are_longer_than_the_text_are_forbidden_as_by_transformers(
    newest: Comparison, case: dict[str, Any], ids: list[int]
) -> None:
    words = [(first, second, third) for first in range(3) for second in range(3) for third in range(9)]
    case["ids"], case["prompt_length"] = ids, 1
    case["options"]["bad_words_ids"] = [*words, *((first, 9) for first in range(3))]
    ours, theirs = newest.run(case)
    assert ours == theirs


@pytest.mark.parametrize("foreign", [-1, _VOCABULARY, _VOCABULARY + 7])
def test_end_token_that_the_model_does_not_have_forbids_nothing(foreign: int) -> None:
    filters = LogitFilters(Sampling(greedy=True, min_new_tokens=2), prompt_length=1, end_tokens=[3, foreign])
    filtered = filters([0], torch.zeros(1, _VOCABULARY))
    assert (filtered[0] == -math.inf).nonzero().flatten().tolist() == [3]
