"""What can be said about one generation: names, ranges, what contradicts what, and which layer counts."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_petals.configuration.options import DEFAULT_MAX_NEW_TOKENS, OPTION_NAMES, resolve_options
from langchain_petals.engine.request import Sampling
from langchain_petals.errors import InvalidRequestError, PromptTooLongError

# ---- layers


@pytest.mark.parametrize("name", sorted(OPTION_NAMES))
def test_none_leaves_an_option_unset(name: str) -> None:
    set_before = {"temperature": 0.2, "top_p": 0.3, "stop": ["x"], "n": 2, "logprobs": True, "top_logprobs": 2}
    options = resolve_options(set_before)
    assert resolve_options(set_before, {name: None}) == options
    assert resolve_options(set_before, {"max_new_tokens": 7}, {"max_tokens": None}).max_new_tokens == 7
    expected = resolve_options({name: None})
    assert getattr(expected, name) == (None if name == "top_p" else getattr(resolve_options(), name))


def test_later_layers_override_earlier_ones() -> None:
    options = resolve_options({"temperature": 0.1, "top_k": 5}, {"temperature": 0.2}, {"temperature": 0.3, "seed": 1})
    assert (options.temperature, options.top_k, options.seed) == (0.3, 5, 1)


def test_max_tokens_is_another_name_for_max_new_tokens() -> None:
    assert resolve_options({"max_new_tokens": 5}, {"max_tokens": 7}).max_new_tokens == 7


@pytest.mark.parametrize(
    ("layers", "new", "length"),
    [
        ([{"max_new_tokens": 5}, {"max_length": 9}], None, 9),
        ([{"max_length": 9}, {"max_new_tokens": 5}], 5, None),
        ([{"max_length": 9}, {"max_tokens": 5}], 5, None),
        ([{"max_length": 9}, {"max_new_tokens": None}], None, 9),
        ([{"max_new_tokens": 5}, {"max_length": None}], 5, None),
    ],
)
def test_the_later_one_of_two_length_limits_counts(
    layers: list[dict[str, Any]], new: int | None, length: int | None
) -> None:
    options = resolve_options(*layers)
    assert (options.max_new_tokens, options.max_length) == (new, length)


@pytest.mark.parametrize(
    ("stop", "found"), [("END", ("END",)), (["a", "b"], ("a", "b")), (("a",), ("a",)), (None, ()), ([], ()), ("", ())]
)
def test_stop_may_be_one_string_or_several(stop: Any, found: tuple[str, ...]) -> None:
    assert resolve_options({"stop": stop}).stop == found


def test_options_of_a_call_do_not_affect_later_calls() -> None:
    layers: list[dict[str, Any]] = [{"temperature": 0.1, "stop": ["a"]}, {"stop": ["b"], "max_length": 3}]
    resolve_options(*layers)
    assert layers == [{"temperature": 0.1, "stop": ["a"]}, {"stop": ["b"], "max_length": 3}]


# ---- what is refused


def test_unknown_option_is_named_and_the_known_ones_listed() -> None:
    with pytest.raises(InvalidRequestError, match="'penalty_alpha' is no generation option") as caught:
        resolve_options({"penalty_alpha": 0.6})
    assert all(name in str(caught.value) for name in OPTION_NAMES)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": -0.1},
        {"temperature": "warm"},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 0},
        {"min_p": 1.5},
        {"typical_p": 0},
        {"repetition_penalty": 0},
        {"no_repeat_ngram_size": -1},
        {"bad_words_ids": [[]]},
        {"bad_words_ids": [[-1]]},
        {"bad_words_ids": [3]},
        {"min_new_tokens": -1},
        {"max_new_tokens": 0},
        {"max_length": 0},
        {"n": 0},
        {"seed": 2**63},
        {"num_beams": 0},
        {"top_logprobs": -1},
        {"timeout": 0},
        {"stop": [5]},
        {"stop": 5},
        {"stop": {"a": 1}},
        {"n": [2]},
        {"n": 1.5},
        {"seed": "x"},
        {"do_sample": 7},
        {"temperature": float("inf")},
        {"temperature": [0.5]},
        {"max_new_tokens": float("nan")},
        {"repetition_penalty": float("inf")},
        {"repetition_penalty": 1e-40},
        {"temperature": 1e38},
        {"timeout": float("inf")},
        {"timeout": 1e300},
    ],
    ids=str,
)
def test_option_out_of_range_is_named_with_its_value(option: dict[str, Any]) -> None:
    [name] = option
    with pytest.raises(InvalidRequestError, match=rf"^{name}\b.*\(got .*\)"):
        resolve_options(option)


def test_one_error_names_all_wrong_options() -> None:
    with pytest.raises(InvalidRequestError, match=r"temperature: .*; top_p: .*; 'nonsense' is no generation option"):
        resolve_options({"temperature": -1, "top_p": 2, "nonsense": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 9, "max_new_tokens": 5}, "max_length .* and max_new_tokens .* are both set; set one"),
        ({"max_length": 9, "max_tokens": 5}, "are both set; set one"),
        ({"stop": ["a", ""]}, "a stop sequence is empty"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs=True"),
        ({"num_beams": 2, "n": 2}, "num_beams > 1 does not go together"),
        ({"num_beams": 2, "logprobs": True}, "num_beams > 1 does not go together"),
        ({"num_beams": 2, "min_p": 0.1}, "num_beams > 1 does not go together"),
        ({"num_beams": 2, "seed": 1}, "num_beams > 1 does not go together"),
    ],
    ids=str,
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        resolve_options(options)


# ---- what options come to


@pytest.mark.parametrize("option", [{"temperature": 0}, {"temperature": 1e-40}, {"do_sample": False}], ids=str)
def test_zero_temperature_or_no_sampling_is_greedy(option: dict[str, Any]) -> None:
    assert resolve_options(option).sampling(0).greedy


def test_each_answer_has_its_own_seed() -> None:
    options = resolve_options({"seed": 5, "n": 3})
    assert [options.sampling(row).seed for row in range(3)] == [5, 6, 7]
    assert resolve_options({"n": 3}).sampling(2).seed is None


def test_all_sampling_options_reach_the_engine() -> None:
    chosen: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.4,
        "top_k": 5,
        "min_p": 0.6,
        "typical_p": 0.7,
        "repetition_penalty": 1.8,
        "no_repeat_ngram_size": 9,
        "bad_words_ids": ((10,), (11, 12)),
        "min_new_tokens": 13,
        "seed": 14,
    }
    assert resolve_options(chosen).sampling(0) == Sampling(**chosen)


def test_none_turns_sampling_options_off() -> None:
    off = dict.fromkeys(("top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "bad_words_ids", "seed"))
    assert resolve_options({"temperature": 1}, off).sampling(0) == Sampling()
    assert resolve_options({"temperature": 1, "top_p": None, "top_k": 0}).sampling(0) == Sampling()


@pytest.mark.parametrize(
    ("options", "prompt", "context", "budget"),
    [
        ({}, 10, None, DEFAULT_MAX_NEW_TOKENS),
        ({}, 10, 100, 90),
        ({"max_new_tokens": 5}, 10, None, 5),
        ({"max_new_tokens": 5}, 10, 12, 2),
        ({"max_new_tokens": 5000}, 10, None, 5000),
        ({"max_length": 12}, 10, None, 2),
        ({"max_length": 5000}, 10, None, 4990),
        ({"max_length": 12}, 10, 11, 1),
        ({"max_length": 12}, 10, 1000, 2),
    ],
)
def test_budget_is_the_smallest_limit_on_new_tokens(
    options: dict[str, Any], prompt: int, context: int | None, budget: int
) -> None:
    assert resolve_options(options).budget(prompt, context) == budget


@pytest.mark.parametrize(
    ("options", "prompt", "context", "limit"),
    [({}, 10, 10, 10), ({}, 11, 10, 10), ({"max_length": 8}, 9, 20, 8), ({"max_length": 30}, 20, 20, 20)],
)
def test_a_prompt_without_room_for_an_answer_is_refused(
    options: dict[str, Any], prompt: int, context: int, limit: int
) -> None:
    with pytest.raises(PromptTooLongError, match=f"{prompt} tokens, but the context holds {limit}") as caught:
        resolve_options(options).budget(prompt, context)
    assert (caught.value.prompt_tokens, caught.value.limit) == (prompt, limit)


def test_errors_call_an_option_by_the_name_that_was_used() -> None:
    with pytest.raises(InvalidRequestError, match=r"^max_tokens: .*finite number"):
        resolve_options({"max_new_tokens": 5}, {"max_tokens": float("nan")})
    with pytest.raises(InvalidRequestError, match=r"^max_new_tokens: .*finite number"):
        resolve_options({}, {"max_new_tokens": float("nan")})
