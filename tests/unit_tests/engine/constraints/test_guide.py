"""Guides: what grammars allow, how answers end in time, and how rows with different constraints run together."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import torch
from random_session import answered, answering, text
from scripted_session import ScriptedEngine, ScriptedSession
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AddedToken, GPT2Tokenizer, PreTrainedTokenizerFast

from langchain_petals.engine.constraints import guide as constraints_module
from langchain_petals.engine.constraints.grammar_state import CompiledGrammar
from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.decoding import Row
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import Constraint, Trigger
from langchain_petals.grammars.builders import json_grammar, lark_grammar, regex_grammar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GREEDY = Sampling(greedy=True)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SHORTEST_PERSON = '{"name": "", "age": 0}'


def asked(grammar: str, budget: int, sampling: Sampling = GREEDY, **more: Any) -> Request:
    return Request([40], budget, sampling, constraint=Constraint(grammar), **more)


def seeded(seed: int) -> Sampling:
    return Sampling(seed=seed)


@pytest.fixture(scope="module")
def marked_tokenizer(merging_tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer with markers for tool calls: one special, one added, as in Mistral's and Qwen's."""
    backend = Tokenizer.from_str(merging_tokenizer.backend_tokenizer.to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["[CALL]"]})
    tokenizer.add_tokens([AddedToken("<call>", special=False)])
    return tokenizer


# ---- what a grammar allows


class Walker:
    """Writes a text token by token, and tells whether the grammar allows each."""

    def __init__(self, tokenizer: Any, grammar: str) -> None:
        self.end = tokenizer.eos_token_id
        self.guide = Grammars(tokenizer).guide(Constraint(grammar), [self.end])

    def says(self, *tokens: int) -> bool:
        for token in tokens:
            if self.guide.finished:
                return False
            choosing = self.guide.choose(10_000)
            mask = next(choosing)
            assert mask is not None
            if not mask[token]:
                return False
            with contextlib.suppress(StopIteration):
                choosing.send(token)
                return False
        return True


def fits(tokenizer: Any, grammar: str, said: str) -> bool:
    """Return whether a grammar allows all of a text."""
    walker = Walker(tokenizer, grammar)
    return walker.says(*said.encode()) and (walker.guide.finished or walker.says(walker.end))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        pytest.param(
            PERSON,
            [SHORTEST_PERSON, '{"name": "é花🌸\\n\\"", "age": -12}'],
            [
                "{}",
                '{"name":"","age":0}',
                '{ "name": "", "age": 0}',
                '{"name": "", "age": 0.5}',
                '{"name": "", "age": 01}',
                '{"name": "", "age": 0, "x": 1}',
                '{"age": 0, "name": ""}',
                '{"name": "\n", "age": 0}',
                '{"name": "", "age": 0}\n',
                "",
            ],
            id="an object",
        ),
        pytest.param({"type": "string"}, ['"\\u0007"', '"/"'], ['"\\u0041"', '"\\/"', '"\\x"', '"'], id="escapes"),
        pytest.param({"enum": ["a", 1, None]}, ['"a"', "1", "null"], ['"b"', "2", "nul"], id="an enum"),
        pytest.param({"type": "string", "pattern": "^a+$"}, ['"a"', '"aaa"'], ['""', '"b"'], id="a pattern"),
        pytest.param({"type": "string", "format": "date"}, ['"2024-02-29"'], ['"today"'], id="a format"),
        pytest.param({"type": "integer", "minimum": 3, "maximum": 12}, ["3", "12"], ["2", "13", "3.5"], id="bounds"),
        pytest.param({"type": "array", "maxItems": 2}, ["[]", "[1, null]"], ["[1,2]", "[1, 2, 3]"], id="an array"),
        pytest.param({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, ["null", "true"], ["1"], id="a union"),
        pytest.param(
            {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
            ["[]", "[[], [[]]]"],
            ["[1]", "[[]"],
            id="recursion",
        ),
    ],
)
def test_json_that_fits_a_schema(
    byte_tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], good: Sequence[str], bad: Sequence[str]
) -> None:
    grammar = json_grammar(schema)
    assert [said for said in good if not fits(byte_tokenizer, grammar, said)] == []
    assert [said for said in bad if fits(byte_tokenizer, grammar, said)] == []


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        pytest.param(regex_grammar("a{2,3}|x"), ["aa", "aaa", "x"], ["a", "aaaa", "xa", ""], id="a regex"),
        pytest.param(regex_grammar("é|/"), ["é", "/"], ["e"], id="a regex of other letters"),
        pytest.param(
            lark_grammar('start: sum\nsum: NUMBER | sum "+" sum | "(" sum ")"\nNUMBER: /[0-9]+/'),
            ["1", "1+2", "(1+(22))"],
            ["", "1+", "(1", "a"],
            id="Lark",
        ),
    ],
)
def test_text_that_fits_a_grammar(
    byte_tokenizer: PreTrainedTokenizerFast, grammar: str, good: Sequence[str], bad: Sequence[str]
) -> None:
    assert [said for said in good if not fits(byte_tokenizer, grammar, said)] == []
    assert [said for said in bad if fits(byte_tokenizer, grammar, said)] == []


@pytest.mark.parametrize(
    ("write", "source", "reason"),
    [
        (json_grammar, {"not": {}}, r"json_schema .*Unimplemented keys: \[\"not\"\]"),
        (json_grammar, {"type": "sting"}, "json_schema .*Invalid type: sting"),
        (json_grammar, {"const": object()}, "cannot be written as JSON"),
        (json_grammar, {"properties": {"a": {"minProperties": 2}}}, "minProperties=2 cannot be guaranteed"),
        (regex_grammar, "(", "regex .*unclosed group"),
        (regex_grammar, "(?<=a)b", "regex .*look-around"),
        (lark_grammar, "start: x", 'grammar .*unknown name: "x"'),
    ],
)
def test_constraint_that_no_grammar_expresses_is_refused_with_the_reason(write: Any, source: Any, reason: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"(?s){reason}"):
        write(source)


# ---- every tokenizer


@pytest.mark.parametrize("name", ["byte_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer"])
@pytest.mark.parametrize("seed", range(5))
def test_answers_fit_with_every_kind_of_tokenizer(name: str, seed: int, request: pytest.FixtureRequest) -> None:
    pieces = answered(request.getfixturevalue(name), asked(json_grammar(PERSON), 60, seeded(seed)), seed=seed)
    person = json.loads(text(pieces))
    assert list(person) == ["name", "age"]


def test_tokenizer_that_is_slow_before_transformers_5_can_be_used(
    merging_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    merging_tokenizer.backend_tokenizer.model.save(str(tmp_path))
    slow = GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), eos_token="</s>")
    assert json.loads(text(answered(slow, asked(json_grammar(PERSON), 40), seed=2)))


def test_tokenizer_without_bytes_spells_what_it_can() -> None:
    letters = [(each, -1.0) for each in ["<unk>", "</s>", *'▁abcé花"{}[]:,0123456789-.', "na", "me", "ag"]]
    backend = Tokenizer(models.Unigram(letters, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")
    schema = {"type": "array", "items": {"type": "string", "pattern": "^[é花]+$"}, "minItems": 2}
    for seed in range(5):
        found = json.loads(text(answered(tokenizer, asked(json_grammar(schema), 25, seeded(seed)), seed=seed)))
        assert all({*each} <= {*"é花"} for each in found)
    with pytest.raises(InvalidRequestError, match="cannot be followed"):
        answered(tokenizer, asked(json_grammar({"const": "unspeakable"}), 20))


def test_tokenizer_whose_bytes_are_unknown_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    content = json.loads(byte_tokenizer.backend_tokenizer.to_str()) | {"decoder": None}
    backend = Tokenizer.from_str(json.dumps(content))
    strange = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    with pytest.raises(InvalidRequestError, match="cannot be used with a grammar"):
        Grammars(strange).guide(Constraint(json_grammar(PERSON)), [])


@pytest.mark.parametrize("size", [250, 600], ids=["smaller", "larger"])
def test_vocabulary_of_the_model_may_have_another_size(byte_tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    pieces = answered(byte_tokenizer, asked(json_grammar(PERSON), 40, seeded(1)), vocabulary=size)
    assert json.loads(text(pieces))


# ---- ending in time


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spare", [0, 1, 5, 40])
@pytest.mark.parametrize(
    ("schema", "shortest"),
    [
        pytest.param(PERSON, SHORTEST_PERSON, id="a string without bound"),
        pytest.param({"type": "array"}, "[]", id="an array without bound"),
        pytest.param({"type": "array", "minItems": 3}, "[0, 0, 0]", id="items"),
        pytest.param(
            {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
            "[]",
            id="recursion",
        ),
        pytest.param({"enum": ["abcdefgh", "b"]}, '"b"', id="the shorter of two"),
        pytest.param(
            {
                "anyOf": [
                    {"type": "object", "properties": {"a": PERSON}, "required": ["a"]},
                    {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"]},
                ]
            },
            '{"b": null}',
            id="the smaller branch",
        ),
        pytest.param({"type": "string", "minLength": 7}, '"0000000"', id="a minimal length"),
        pytest.param({"type": "string", "pattern": "[0-9]{2}$"}, '"00"', id="a pattern at the end"),
    ],
)
def test_answer_ends_within_the_budget_whatever_the_model_wants(
    byte_tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], shortest: str, spare: int, seed: int
) -> None:
    budget = len(shortest) + spare
    request = asked(json_grammar(schema), budget, seeded(seed))
    pieces = answered(byte_tokenizer, request, seed=seed, reluctant=[byte_tokenizer.eos_token_id])
    assert json.loads(text(pieces)) is not None
    assert pieces[-1].generated <= budget
    with pytest.raises(OutputLimitError) as caught:
        answered(byte_tokenizer, asked(json_grammar(schema), len(shortest) - 1), seed=seed)
    assert (caught.value.limit, caught.value.needed, caught.value.generated) == (len(shortest) - 1, len(shortest), "")


EMAIL = r"^[^@\s]+@[^@\s]+\.[^@\s]+$"


def pattern(expression: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": expression, **more}


def required(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "shortest"),
    [
        (pattern(EMAIL), "0@0.0"),
        (pattern(r"^.*\.pdf$"), ".pdf"),
        (pattern(r"\.(jpg|jpeg)$"), ".jpg"),
        (pattern("abc"), "abc"),
        (pattern("^SELECT .* FROM .*;$"), "SELECT  FROM ;"),
        (pattern(r"^v\d+\.\d+\.\d+$"), "v0.0.0"),
        (pattern(r"^\d+ (EUR|USD|P)$"), "0 P"),
        (pattern(r"^(\w+ ){2}\w+$"), "0 0 0"),
        (pattern(r"[a-z]+\s[a-z]+@x\.com"), "a a@x.com"),
        (pattern('"é\\\\$'), '"é\\'),
        (pattern(r"\.pdf$", minLength=9, maxLength=999), "}}}}}.pdf"),
        ({"allOf": [pattern("abc"), pattern(r"\.pdf$")]}, "abc.pdf"),
        ({"type": "string", "format": "email"}, "0@0"),
        ({"type": "array", "items": required(file=pattern(r"\.pdf$"))}, []),
        (required(file=pattern(r"\.pdf$"), mail=pattern(EMAIL)), {"file": ".pdf", "mail": "0@0.0"}),
        ({"type": "object", "patternProperties": {r"\.k$": {"type": "null"}}, "additionalProperties": False}, {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("spare", [0, 3, 60])
def test_strings_end_in_time_whatever_their_patterns_ask_for(
    byte_tokenizer: PreTrainedTokenizerFast, schema: dict[str, Any], shortest: Any, spare: int
) -> None:
    grammars, budget = Grammars(byte_tokenizer), len(json.dumps(shortest, ensure_ascii=False).encode()) + spare
    for seed in range(3):
        pieces = answered(byte_tokenizer, asked(json_grammar(schema), budget, seeded(seed)), grammars, seed=seed)
        jsonschema.validate(json.loads(text(pieces)), schema)
    with pytest.raises(OutputLimitError) as caught:
        answered(byte_tokenizer, asked(json_grammar(schema), budget - spare - 1), grammars)
    assert caught.value.needed == budget - spare


@pytest.mark.parametrize(
    ("grammar", "expression"),
    [
        (regex_grammar(r".*\.pdf"), r".*\.pdf"),
        (regex_grammar(r"(.*\n){2}END\n"), r"(.*\n){2}END\n"),
        (regex_grammar(r"[^@]+@[^@]+\.com"), r"[^@]+@[^@]+\.com"),
        (lark_grammar('start: FILE "\\n" FILE\nFILE: /.*\\.pdf/'), r".*\.pdf\n.*\.pdf"),
        (lark_grammar('start: FILE "\\n" FILE\nFILE: /.*/ ".pdf"  // as above'), r".*\.pdf\n.*\.pdf"),
        (lark_grammar('start: Q\nQ: /(select|with) .*/ " from " /.*;/'), r"(select|with) .* from .*;"),
        (lark_grammar('start: "<" %json {"type": "string", "pattern": "x$"} ">" /.*end/i'), r'<".*x">.*(?i:end)'),
    ],
    ids=["a suffix", "lines", "an address", "Lark", "Lark, of parts", "Lark, in the middle", "Lark and JSON"],
)
def test_texts_end_in_time_whatever_their_expressions_ask_for(
    byte_tokenizer: PreTrainedTokenizerFast, grammar: str, expression: str
) -> None:
    grammars = Grammars(byte_tokenizer)
    for seed in range(3):
        request = asked(grammar, 60, seeded(seed))
        answer = text(answered(byte_tokenizer, request, grammars, seed=seed, reluctant=[byte_tokenizer.eos_token_id]))
        assert re.fullmatch(expression, answer)


@pytest.mark.parametrize("budget", range(3, 42))
def test_long_branch_that_begins_like_a_short_one_is_taken_only_if_it_fits(
    byte_tokenizer: PreTrainedTokenizerFast, budget: int
) -> None:
    """A hexadecimal digit after the quote may be a letter of the short text, or begin 36 characters."""
    grammar = json_grammar({"type": "string", "anyOf": [{"pattern": "^[a-c]+$"}, {"format": "uuid"}]})
    grammars = Grammars(byte_tokenizer)
    for seed in range(12):
        pieces = answered(byte_tokenizer, asked(grammar, budget, seeded(seed)), grammars, seed=seed)
        answer = json.loads(text(pieces))
        assert len(answer) == 36 or set(answer) <= set("abc")


def test_output_limit_error_of_an_unsteered_answer_has_its_text(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """A text of 5,000 letters is longer than any ending that is searched for."""
    with pytest.raises(OutputLimitError, match="within 20 new token") as caught:
        answered(byte_tokenizer, asked(regex_grammar("[ab]{5000}"), 20))
    assert not caught.value.steered
    assert len(caught.value.generated) == 20
    assert set(caught.value.generated) <= {"a", "b"}


def test_output_limit_error_has_the_text_as_it_was_written(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    tidying = PreTrainedTokenizerFast(
        tokenizer_object=merging_tokenizer.backend_tokenizer, eos_token="</s>", clean_up_tokenization_spaces=True
    )
    with pytest.raises(OutputLimitError) as caught:
        answered(tidying, asked(regex_grammar("( \\. , do n't){500}"), 12))
    assert caught.value.generated.startswith(" . , do n't")


def test_limit_that_shrinks_during_an_answer_is_kept(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """A server that replaces another may have less room; the answer has to end within the rest, if it can."""
    end = byte_tokenizer.eos_token_id
    for limit, fits_in in ((26, True), (14, False), (5, False)):
        generation = Generation(asked(json_grammar({"type": "string", "minLength": 10}), 99))
        guide = Grammars(byte_tokenizer).guide(generation.request.constraint, [end])
        row = Row(generation, byte_tokenizer, [end], guide)
        for seed in range(99):
            if seed == 8:
                row.shorten(limit + 1)
            if row.done:
                break
            row.see(len(row.ids), torch.randn(259, generator=torch.Generator().manual_seed(seed)))
            row.deliver()
        if fits_in:
            pieces = list(generation)
            assert len(json.loads(text(pieces))) >= 10
            assert pieces[-1].generated <= limit
        else:
            with pytest.raises(OutputLimitError, match=f"within {limit} new") as caught:
                list(generation)
            assert caught.value.generated.startswith('"')


@pytest.mark.parametrize(
    ("said", "budget", "expected", "reason"),
    [
        ("[abc]", 5, "[abc]", "stop"),
        ("[abcd]", 5, "[abc]", "length"),
        ("[abcd]", 6, "[abcd]", "stop"),
        ("[]", 9, "[]", "stop"),
        ("<bb]", 6, "[bb]", "length"),  # what it began with has no room, the rest is its own
        ("<12345>", 7, "<12345>", "stop"),
    ],
)
def test_finish_reason_tells_whether_the_budget_ended_the_answer(
    byte_tokenizer: PreTrainedTokenizerFast, said: str, budget: int, expected: str, reason: str
) -> None:
    request = asked(regex_grammar(r"\[[a-z]*\]|<[0-9]{5}>"), budget)
    pieces = answered(byte_tokenizer, request, said=bytes_of(said))
    assert (text(pieces), pieces[-1].finish_reason) == (expected, reason)
    assert pieces[-1].generated <= budget


def test_ending_is_measured_in_tokens(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    words = "the quick brown fox"
    tokens = len(merging_tokenizer(words)["input_ids"])
    assert tokens < len(words)
    pieces = answered(merging_tokenizer, asked(regex_grammar(f"{words}|[0-9]{{30}}"), tokens))
    assert text(pieces) == words


def test_finished_answer_needs_no_end_token(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = answered(byte_tokenizer, asked(regex_grammar("ab"), 9))
    assert (text(pieces), pieces[-1].generated, pieces[-1].finish_reason) == ("ab", 2, "stop")


def test_end_token_is_allowed_only_where_the_text_may_end(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    end = byte_tokenizer.eos_token_id
    pieces = answered(byte_tokenizer, asked(regex_grammar("ab(cd)*"), 9), said=[end] * 9)
    assert (text(pieces), pieces[-1].generated, pieces[-1].finish_reason) == ("ab", 3, "stop")
    pieces = answered(byte_tokenizer, asked(regex_grammar("ab(cd)*"), 9), reluctant=[end])
    assert (text(pieces), pieces[-1].finish_reason) == ("abcdcdcd", "length")  # one c more, and it could not end
    pieces = answered(byte_tokenizer, asked(regex_grammar("a+"), 9), reluctant=[end])
    assert (text(pieces), pieces[-1].finish_reason) == ("a" * 9, "length")


def test_end_tokens_of_the_request_end_it_too(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    other = byte_tokenizer.convert_tokens_to_ids("<|endoftext|>")
    pieces = answered(byte_tokenizer, asked(regex_grammar("a+"), 9, end_tokens=(other,)), said=[97, other])
    assert (text(pieces), pieces[-1].finish_reason) == ("a", "stop")


def test_end_token_inside_the_text_does_not_end_it(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    """An end token of the request may be text of the grammar, too."""
    backend = Tokenizer.from_str(merging_tokenizer.backend_tokenizer.to_str())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.add_tokens([AddedToken("###END", special=False)])
    quote, letter, end = tokenizer.convert_tokens_to_ids(['"', "a", "###END"])
    said = [quote, letter, end, letter, quote]
    for schema in ({"type": "string"}, {"const": "a###ENDa"}):
        pieces = answered(tokenizer, asked(json_grammar(schema), 30, end_tokens=(end,)), said=said)
        assert json.loads(text(pieces)).startswith("a")
    request = asked(regex_grammar("a###ENDb"), 3, end_tokens=(end,))  # there is no room to spell it
    assert text(answered(tokenizer, request)) == "a###ENDb"


def test_end_token_that_the_grammar_asks_for_is_written(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    end = byte_tokenizer.eos_token_id
    pieces = answered(byte_tokenizer, asked(lark_grammar('start: "ab" <|im_end|>'), 9), said=[97, end])
    assert (text(pieces), pieces[-1].generated, pieces[-1].finish_reason) == ("ab", 3, "stop")


# ---- with other options


@pytest.mark.parametrize(
    "sampling",
    [
        pytest.param(Sampling(top_k=1, seed=1), id="top_k"),
        pytest.param(Sampling(top_p=0.01, seed=1), id="top_p"),
        pytest.param(Sampling(min_p=1.0, seed=1), id="min_p"),
        pytest.param(Sampling(typical_p=0.01, seed=1), id="typical_p"),
        pytest.param(Sampling(repetition_penalty=50.0, greedy=True), id="repetition_penalty"),
        pytest.param(Sampling(no_repeat_ngram_size=1, greedy=True), id="no_repeat_ngram_size"),
        pytest.param(Sampling(min_new_tokens=50, greedy=True), id="min_new_tokens"),
        pytest.param(Sampling(bad_words_ids=((ord("{"),), (ord('"'),)), greedy=True), id="bad_words_ids"),
    ],
)
def test_grammar_is_applied_before_every_other_option(
    byte_tokenizer: PreTrainedTokenizerFast, sampling: Sampling
) -> None:
    pieces = answered(byte_tokenizer, asked(json_grammar(PERSON), 30, sampling))
    assert list(json.loads(text(pieces))) == ["name", "age"]


def test_log_probabilities_are_those_among_the_allowed_tokens(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = answered(byte_tokenizer, asked(regex_grammar("[ab]c"), 9, top_logprobs=5))
    first, second = (piece.logprobs for piece in pieces)
    assert first is not None
    assert second is not None
    assert {token for token, _ in first.top} == {ord("a"), ord("b")}
    assert sum(torch.tensor([value for _, value in first.top]).exp()) == pytest.approx(1)
    assert (second.token, second.logprob, second.top) == (ord("c"), 0.0, ((ord("c"), 0.0),))


def test_stop_sequence_does_not_cut_text_of_a_grammar(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = answered(byte_tokenizer, asked(json_grammar(PERSON), 30, stop=['"', "na", "}"]))
    assert list(json.loads(text(pieces))) == ["name", "age"]


def test_beam_search_with_a_grammar_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="num_beams=1"):
        asked(regex_grammar("a"), 5, num_beams=2)


@pytest.mark.parametrize("more", [{}, {"grammar": "start: /a/", "triggers": (Trigger("<", "start: /a/"),)}])
def test_constraint_has_either_a_grammar_or_triggers(more: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="give one of them"):
        Constraint(**more)


# ---- after a marker

CALL = Trigger("<call>", 'start: "(" /[0-9]+/ ")"')


def free(budget: int, *triggers: Trigger, stop: Sequence[str] = (), repeat: bool = True, **more: Any) -> Request:
    constraint = Constraint(triggers=triggers or (CALL,), repeat=repeat, **more)
    return Request([40], budget, GREEDY, stop=stop, constraint=constraint)


def bytes_of(*texts: str) -> list[int]:
    return [*"".join(texts).encode()]


@pytest.mark.parametrize("seed", range(3))
def test_text_without_a_marker_is_unconstrained(merging_tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
    request = free(30)
    plain = Request([40], 30, GREEDY)
    assert text(answered(merging_tokenizer, request, seed=seed)) == text(answered(merging_tokenizer, plain, seed=seed))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("hi <call>(12)", "hi <call>(12)"),
        ("<call>", "<call>("),
        ("<call><call>", "<call>("),
        ("<<call>(1)", "<<call>(1)"),
        ("<cal<call>(1)", "<cal<call>(1)"),
        ("<call>(1)x<call>(2)", "<call>(1)x<call>(2)"),
    ],
)
def test_grammar_holds_from_the_marker_on(byte_tokenizer: PreTrainedTokenizerFast, said: str, expected: str) -> None:
    pieces = answered(byte_tokenizer, free(len(said) + 5), said=bytes_of(said))
    assert text(pieces).startswith(expected)
    calls = text(pieces).split("<call>")[1:]
    assert all(call[0] == "(" and call[1].isdigit() and ")" in call for call in calls)


def test_marker_may_begin_and_end_inside_tokens(merging_tokenizer: PreTrainedTokenizerFast) -> None:
    said = merging_tokenizer("over the fox jumps")["input_ids"]
    trigger = Trigger("e f", 'start: "ox" ("X" | " jumps on")')
    assert "e" not in merging_tokenizer.convert_ids_to_tokens(said)
    request = free(40, trigger, repeat=False)
    assert text(answered(merging_tokenizer, request, said=said)).startswith("over the fox jumps on")


def test_answer_ends_with_a_call_if_no_other_may_follow(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = answered(byte_tokenizer, free(40, repeat=False), said=bytes_of("a<call>(1)b"))
    assert (text(pieces), pieces[-1].finish_reason) == ("a<call>(1)", "stop")


@pytest.mark.parametrize(("said", "counts"), [(" \n<call>", True), ("a <call>", False), ("<call>", True)])
def test_marker_may_count_at_the_beginning_only(
    byte_tokenizer: PreTrainedTokenizerFast, said: str, *, counts: bool
) -> None:
    trigger = Trigger("<call>", 'start: "()"', at_start=True)
    pieces = answered(byte_tokenizer, free(len(said) + 4, trigger), said=bytes_of(said, "XX"))
    assert text(pieces).startswith(said + ("()" if counts else "XX"))


@pytest.mark.parametrize(
    ("said", "begun", "counts"),
    [
        ("<t>a <call> b</t>\n<call>", False, True),
        ("\n<t></t><call>", False, True),
        ("a <call></t><call>", True, True),
        ("<t>a<call>", False, False),
        ("<call>", True, False),
        ("<t>a</t>b<call>", False, False),
        ("a<t>a</t><call>", False, False),
        ("<t>a</t><t>a</t><call>", False, False),
        ("<t<call>", False, False),
        ("\u3000<call>", False, False),
    ],
)
@pytest.mark.parametrize("name", ["byte_tokenizer", "merging_tokenizer"])
def test_reasoning_may_come_before_a_marker_at_the_beginning(
    name: str, said: str, request: pytest.FixtureRequest, *, begun: bool, counts: bool
) -> None:
    tokenizer = request.getfixturevalue(name)
    tokens = tokenizer(said, add_special_tokens=False)["input_ids"]
    trigger = Trigger("<call>", 'start: "()"', at_start=True)
    asked = free(len(tokens) + 9, trigger, repeat=False, reasoning=("<t>", "</t>"), reasoning_begun=begun)
    written = text(answered(tokenizer, asked, said=[*tokens, *tokenizer("XX", add_special_tokens=False)["input_ids"]]))
    assert written.startswith(said + ("()" if counts else "XX"))


def test_call_that_could_not_end_in_time_is_not_begun(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    for budget in range(6, 12):
        pieces = answered(byte_tokenizer, free(budget), said=bytes_of("<call>(1)"))
        assert ("<call>" in text(pieces)) == (budget >= len("<call>(1)"))
        assert pieces[-1].generated <= budget
        if budget < len("<call>(1)"):  # what the model began is not shown, and not gone on with as text
            assert (text(pieces), pieces[-1].generated, pieces[-1].finish_reason) == ("", len("<call>"), "length")


def test_forbidden_marker_is_not_written(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    never = free(20, Trigger("<call>", None))
    for said, expected in (("<call>(1)", ""), ("a <b> <call>(1)", "a <b> "), ("a <<call>(1)", "a <")):
        pieces = answered(byte_tokenizer, never, said=bytes_of(said))
        assert (text(pieces), pieces[-1].finish_reason) == (expected, "stop")


def test_token_that_continues_wrongly_after_a_marker_does_not_end_the_answer(
    merging_tokenizer: PreTrainedTokenizerFast,
) -> None:
    said = merging_tokenizer("over the fox jumps")["input_ids"]
    pieces = answered(merging_tokenizer, free(40, Trigger("e f", 'start: "X"'), repeat=False), said=said)
    assert text(pieces).startswith("over the")


def test_text_replaces_a_forbidden_marker_of_one_token(
    marked_tokenizer: PreTrainedTokenizerFast,
) -> None:
    for marker in ("[CALL]", "<call>"):
        [token] = marked_tokenizer.convert_tokens_to_ids([marker])
        pieces = answered(marked_tokenizer, free(20, Trigger(marker, None)), said=[token])
        assert marker not in text(pieces)
        assert pieces[-1].generated > 1
        assert text(pieces)


@pytest.mark.parametrize("marker", ["[CALL]", "<call>"])
def test_marker_that_is_one_token_is_part_of_the_text(marked_tokenizer: PreTrainedTokenizerFast, marker: str) -> None:
    [token] = marked_tokenizer.convert_tokens_to_ids([marker])
    trigger = Trigger(marker, 'start: "(" /[0-9]/ ")" close')
    request = free(40, trigger, repeat=False, markers=(("close", marker),))
    said = [*marked_tokenizer("the fox")["input_ids"], token]
    pieces = answered(marked_tokenizer, request, said=said)
    start, call, rest = text(pieces).split(marker)
    assert (start, rest) == ("the fox", "")
    assert call[1].isdigit()
    letters = marked_tokenizer.convert_tokens_to_ids(list(marker))  # or it may be spelled
    assert text(answered(marked_tokenizer, request, said=letters)).startswith(f"{marker}(")


def test_stop_sequences_hold_in_free_text_only(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    for said, expected in [
        ("ab;<call>(1)", "ab"),
        ("a<call>(1)b;", "a<call>(1)b"),
        ("a<call>(1);", "a<call>(1)"),
    ]:
        request = free(30, stop=[";", "(", "1)"])
        pieces = answered(byte_tokenizer, request, said=bytes_of(said))
        assert (text(pieces), pieces[-1].finish_reason) == (expected, "stop")


# ---- several rows and threads


def test_rows_in_lockstep_keep_to_their_own_constraints(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    requests = [
        asked(json_grammar(PERSON), 30, seeded(1)),
        asked(regex_grammar("[ab]{5}"), 9, seeded(2)),
        Request([40], 12, seeded(3)),
        asked(json_grammar(PERSON), 5),
        free(20),
        asked(json_grammar({"type": "array"}), 25, seeded(4)),
    ]
    person, letters, plain, hopeless, call, array = answering(byte_tokenizer, requests, said=bytes_of("<call>"))
    assert list(json.loads(text(list(person)))) == ["name", "age"]
    assert len(text(list(letters))) == 5
    assert list(plain)[-1].generated == 12
    assert text(list(call)).startswith("<call>(")
    assert isinstance(json.loads(text(list(array))), list)
    with pytest.raises(OutputLimitError):
        list(hopeless)


def test_grammar_that_does_not_compile_fails_its_own_row(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """A Lark grammar may name a special token that the model's tokenizer does not have."""
    session = ScriptedSession([b"ab"], [b"xyz"])
    engine = ScriptedEngine(byte_tokenizer, lambda _: session, end_tokens=[258])
    bad = asked(lark_grammar('start: <|nothing|> "a"'), 3)
    good = Request(list(b"ab"), 3, GREEDY)
    first, second = engine.submit([bad, good], Settings(session_cache=0))
    with pytest.raises(InvalidRequestError, match="nothing"):
        list(first)
    assert text(list(second)) == "xyz"


def test_grammar_is_compiled_once_for_all_threads(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    grammars, constraint = Grammars(byte_tokenizer), Constraint(json_grammar(PERSON))
    answers: list[str] = []

    def answer() -> None:
        request = Request([40], 40, seeded(7), constraint=constraint)
        answers.append(text(answered(byte_tokenizer, request, grammars)))

    threads = [threading.Thread(target=answer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert all(one == other for one, other in pairwise(answers))
    assert len(grammars._compiled) == 1


def test_different_grammars_compile_at_the_same_time(
    byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3)

    class Meeting(CompiledGrammar):
        """A grammar that waits until the others are being compiled."""

        def __init__(self, *args: Any) -> None:
            together.wait(30)
            super().__init__(*args)

    monkeypatch.setattr(constraints_module, "CompiledGrammar", Meeting)
    grammars = Grammars(byte_tokenizer)
    asked = [Constraint(regex_grammar(pattern)) for pattern in ("a", "b", "c")]
    with ThreadPoolExecutor(3) as threads:
        guides = list(threads.map(lambda each: grammars.guide(each, []), asked))
    assert len({id(guide._state._compiled) for guide in guides if guide._state}) == 3


@pytest.mark.parametrize("name", ["Vocabulary", "CompiledGrammar"])
def test_threads_wait_for_a_grammar_that_another_thread_compiles(
    byte_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []
    real: Any = getattr(constraints_module, name)

    class Slow(real):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            made.append(self)
            begun.set()
            go_on.wait(30)
            super().__init__(*args)

    monkeypatch.setattr(constraints_module, name, Slow)
    grammars, constraint = Grammars(byte_tokenizer), Constraint(json_grammar(PERSON))
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(grammars.guide, constraint, [])
        assert begun.wait(30)
        others = [threads.submit(grammars.guide, constraint, []) for _ in range(3)]
        assert not first.done()
        go_on.set()
        guides = [each.result() for each in (first, *others)]
    assert len(made) == 1
    assert len({id(guide._state._compiled) for guide in guides if guide._state}) == 1


def test_least_recently_used_grammars_are_dropped(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    grammars = Grammars(byte_tokenizer)
    for number in range(70):
        grammars.guide(Constraint(regex_grammar(f"a{{{number}}}b")), [])
    assert len(grammars._compiled) == 64
