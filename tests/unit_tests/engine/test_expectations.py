"""`Expectations`: how long answers will be, and how many steps they take, as earlier ones tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from langchain_petals.engine.expectations import Expectations
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.grammars import Constraint

if TYPE_CHECKING:
    from langchain_petals.engine.expectations import Expected

PLAIN = Settings()
GRAMMAR = Constraint("start: /a/")


def request(limit: int = 1000, constraint: Constraint | None = None, **sampling: Any) -> Request:
    return Request([1] * 10, limit, Sampling(**sampling), constraint=constraint)


def noted(
    tokens: int,
    trips: int,
    forced: int = 0,
    *,
    constraint: Constraint | None = None,
    alone: bool = True,
    settings: Settings = PLAIN,
) -> Expectations:
    """Return what is expected after many answers of one kind."""
    expectations = Expectations()
    for _ in range(50):
        generation = Generation(request(constraint=constraint))
        generation.trips, generation.forced_tokens = trips, forced
        expectations.note(generation, tokens, settings, alone=alone)
    return expectations


def expected(expectations: Expectations, asked: Request, settings: Settings = PLAIN) -> Expected:
    return expectations.of(asked, settings)


@pytest.mark.parametrize(("limit", "answer"), [(1, 1), (10, 5), (100, 50), (1000, 128)])
def test_first_answer_is_expected_to_have_half_of_its_limit_or_128_tokens(limit: int, answer: int) -> None:
    assert expected(Expectations(), request(limit)).answer == answer


@pytest.mark.parametrize(("limit", "least", "answer"), [(1000, 0, 20), (15, 0, 15), (1000, 100, 100), (100, 200, 100)])
def test_answer_is_expected_to_be_as_long_as_earlier_ones_within_its_bounds(
    limit: int, least: int, answer: int
) -> None:
    assert expected(noted(20, 20), request(limit, min_new_tokens=least)).answer == pytest.approx(answer)


def test_recent_answers_count_more() -> None:
    expectations = noted(20, 20)
    for _ in range(20):
        expectations.note(Generation(request()), 200, PLAIN, alone=False)
    assert expected(expectations, request()).answer > 150


def test_answers_under_a_grammar_and_without_are_told_apart() -> None:
    expectations = noted(20, 5, 15, constraint=GRAMMAR)
    assert expected(expectations, request(constraint=GRAMMAR)).answer == pytest.approx(20)
    assert expected(expectations, request()).answer == 128
    assert expected(expectations, request()).alone == expected(expectations, request()).together == 1


def test_first_answer_under_a_grammar_is_expected_to_need_fewer_steps_than_tokens() -> None:
    first = expected(Expectations(), request(constraint=GRAMMAR))
    assert 0 < first.alone <= first.together < 1


def test_steps_and_forced_tokens_of_earlier_answers_tell_the_shares() -> None:
    found = expected(noted(20, 6, 12, constraint=GRAMMAR), request(constraint=GRAMMAR))
    assert found.alone == pytest.approx(5 / 19)  # the first step belongs to the prompt, and brings the first token
    assert found.together == pytest.approx(8 / 20)


def test_rows_that_shared_a_session_do_not_tell_what_one_alone_needs() -> None:
    found = expected(noted(20, 20, 12, constraint=GRAMMAR, alone=False), request(constraint=GRAMMAR))
    assert found.alone == expected(Expectations(), request(constraint=GRAMMAR)).alone
    assert found.together == pytest.approx(8 / 20)


def test_wholly_forced_answers_need_no_step() -> None:
    found = expected(noted(20, 0, 20, constraint=GRAMMAR), request(constraint=GRAMMAR))
    assert found.alone == found.together == 0


def test_drafts_spare_steps_of_free_text_only_where_it_is_alone() -> None:
    found = expected(noted(21, 11), request())
    assert found.alone == pytest.approx(0.5)
    assert found.together == 1


@pytest.mark.parametrize("tokens", [1, 2, 32])
def test_where_nothing_was_spared_each_token_is_expected_to_need_a_step(tokens: int) -> None:
    assert expected(noted(tokens, tokens), request()).alone == 1


@pytest.mark.parametrize(
    ("settings", "alone", "together"),
    [(Settings(speculation=False), 0.4, 0.4), (Settings(runs_ahead=False), 5 / 19, 1.0)],
)
def test_what_is_turned_off_spares_no_steps(settings: Settings, alone: float, together: float) -> None:
    expectations = noted(20, 6, 12, constraint=GRAMMAR)
    found = expected(expectations, request(constraint=GRAMMAR), settings)
    assert [found.alone, found.together] == pytest.approx([alone, together])


def test_nothing_is_learned_of_shares_where_each_token_is_asked_for() -> None:
    found = expected(
        noted(20, 20, 0, constraint=GRAMMAR, settings=Settings(runs_ahead=False)), request(constraint=GRAMMAR)
    )
    assert found.alone < found.together < 1


def test_request_without_an_answer_tells_nothing() -> None:
    assert expected(noted(0, 1), request()).answer == 128


def test_most_tokens_are_those_of_the_limit() -> None:
    assert expected(noted(20, 20), request(1000)).longest == 1010
