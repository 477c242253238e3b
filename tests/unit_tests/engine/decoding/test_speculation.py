"""Drafts change how often the model is asked, and nothing else: the answers are those without drafts."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from local_engine import LocalEngine
from repeating_session import EqualCosts, RepeatingSession

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.decoding import Row, decode
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import OutputLimitError
from langchain_petals.grammars import Constraint, Trigger, json_grammar, regex_grammar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from langchain_petals.pieces import Piece

# How many answers each test compares; more by hand.
ANSWERS = int(os.environ.get("SPECULATION_ANSWERS", "60"))
GREEDY = Sampling(greedy=True)
PEOPLE = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "role": {"enum": ["author", "editor"]}, "age": {"type": "integer"}},
        "required": ["name", "role", "age"],
        "additionalProperties": False,
    },
    "minItems": 3,
    "maxItems": 4,
}
CONSTRAINTS = [
    None,
    None,
    Constraint(json_grammar(PEOPLE)),
    Constraint(regex_grammar("(abcd[ef]){5,9}")),
    Constraint(triggers=(Trigger("ab", 'start: "(" /[0-9]+/ ")"'),), repeat=True),
]


@dataclass
class Answer:
    """What a request brought.

    Attributes:
        pieces: Its pieces.
        error: The error at the end, if any.
        parked: The tokens of the session when the row was done.
    """

    pieces: list[Piece] = field(default_factory=list)
    error: str = ""
    parked: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return [token for piece in self.pieces for token in piece.tokens]


def collected(generation: Generation) -> Answer:
    """Wait for the end of a generation."""
    found = Answer()
    try:
        found.pieces.extend(generation)
    except OutputLimitError as error:
        found.error = str(error)
    return found


def answered(
    tokenizer: Any,
    request: Request,
    session: RepeatingSession,
    *,
    grammars: Grammars | None = None,
    speculation: bool = True,
    chunk_tokens: int = 1024,
) -> tuple[Answer, Generation]:
    """Let a session answer a request."""
    generation, ends = Generation(request), [tokenizer.eos_token_id]
    guide = None
    if request.constraint is not None:
        guide = (grammars or Grammars(tokenizer)).guide(request.constraint, [*ends, *request.end_tokens])
    row, parked = Row(generation, tokenizer, ends, guide, vocabulary=len(tokenizer)), list[int]()
    row.run_ahead()
    decode(session, [row], chunk_tokens, lambda: parked.extend(session.ids), speculation=speculation)
    row.deliver()
    answer = collected(generation)
    answer.parked = parked
    return answer, generation


def requests(number: int) -> list[Request]:
    """Return different requests."""
    chance = random.Random(number)
    found = []
    for _ in range(number):
        sampling = chance.choice(
            [
                GREEDY,
                Sampling(seed=chance.randrange(100)),
                Sampling(seed=chance.randrange(100), temperature=0.3, top_p=0.9),
                Sampling(seed=chance.randrange(100), repetition_penalty=1.3, top_k=20),
                replace(GREEDY, no_repeat_ngram_size=chance.randint(3, 6), min_new_tokens=chance.randrange(20)),
            ]
        )
        found.append(
            Request(
                [chance.randrange(97, 107) for _ in range(chance.randint(1, 12))],
                chance.choice([1, 2, 3, 8, 30, 120]),
                sampling,
                stop=chance.choice([(), (), ("c",), ("de", "\n"), ("abcabc",)]),
                end_tokens=chance.choice([(), (), (101,)]),
                top_logprobs=chance.choice([None, 0, 3]),
                constraint=chance.choice(CONSTRAINTS),
            )
        )
    return found


def check_session(request: Request, answer: Answer, expected: Answer) -> None:
    """Check that a session holds a beginning of the answer; maybe more of it than without drafts."""
    row = [*request.prompt_ids, *answer.tokens]
    assert answer.parked == row[: len(answer.parked)]
    assert len(expected.parked) <= len(answer.parked) <= len(row)


def test_answers_are_those_without_drafts(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """Tokens, texts, reasons, log-probabilities and errors, and what the session holds afterwards."""
    grammars, accepted, drafted = Grammars(byte_tokenizer), 0, 0
    for number, request in enumerate(requests(ANSWERS)):
        fickle, chunk = [0.0, 0.3, 2.0][number % 3], [1024, 1024, 5][number // 3 % 3]
        ran = []
        for speculation in (True, False):
            session = RepeatingSession(len(byte_tokenizer), seed=number, fickle=fickle)
            ran.append(
                answered(
                    byte_tokenizer,
                    request,
                    session,
                    grammars=grammars,
                    speculation=speculation,
                    chunk_tokens=chunk,
                )
            )
        (answer, generation), (expected, asked) = ran
        check_session(request, answer, expected)
        assert (answer.pieces, answer.error) == (expected.pieces, expected.error)
        assert generation.forced_tokens == asked.forced_tokens
        assert generation.trips <= asked.trips
        saved = asked.trips - generation.trips
        # a token saves no step if it ends the answer, or if forced text after it goes beyond the draft
        assert chunk < 10 or 0 <= generation.accepted_tokens - saved <= generation.trips
        assert generation.accepted_tokens <= generation.drafted_tokens
        assert not asked.drafted_tokens
        accepted += generation.accepted_tokens
        drafted += generation.drafted_tokens
    assert drafted > accepted > ANSWERS


class LosesRollBack(RepeatingSession):
    """A session whose first chain has other servers than were known: it cannot roll back, and goes on from anew."""

    @property
    def can_roll_back(self) -> bool:
        return not self.steps

    def roll_back(self, position: int) -> None:
        self.rolled_back.append(position)
        del self._held[position:]


def test_a_wrong_guess_of_how_forced_text_is_written_changes_no_answer(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    grammars, chance = Grammars(tiny_tokenizer), random.Random(7)
    constraints = [
        Constraint(json_grammar(PEOPLE)),
        Constraint(regex_grammar(r"The quick brown fox jumps over the lazy (dog|cat)\. The end\.")),
        Constraint(regex_grammar("(\u65e5\u672c\u8a9e|h\u00e9llo w\u00f6rld){2,4}")),
        Constraint('start: "the restaurant" END "and more"', markers=(("END", "<tool_call>"),)),
        Constraint(triggers=(Trigger("e", 'start: "(the restaurant named " /[a-z]{1,4}/ " is open)"'),), repeat=True),
    ]
    rolled_back = 0
    for number in range(ANSWERS // 2):
        prompt = tiny_tokenizer.encode(
            chance.choice(["The quick brown", '[{"name": "', "open"]), add_special_tokens=False
        )
        request = Request(
            prompt,
            chance.choice([1, 8, 120, 120]),
            chance.choice([GREEDY, Sampling(seed=number)]),
            stop=chance.choice([(), ("lazy",), ('": "',), ("o",)]),
            constraint=chance.choice(constraints),
        )
        ran = []
        for kind, speculation in ((RepeatingSession, True), (LosesRollBack, True), (RepeatingSession, False)):
            session = kind(len(tiny_tokenizer), seed=number, fickle=[0.0, 0.3, 2.0][number % 3])
            chunk = [1024, 7, 1][number // 3 % 3]
            answer, _ = answered(
                tiny_tokenizer, request, session, grammars=grammars, speculation=speculation, chunk_tokens=chunk
            )
            rolled_back += len(session.rolled_back)
            ran.append(answer)
        for answer in ran[:2]:
            check_session(request, answer, ran[2])
            assert (answer.pieces, answer.error) == (ran[2].pieces, ran[2].error)
    assert rolled_back


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=5)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constraint", [None, CONSTRAINTS[2]], ids=["free", "grammar"])
def test_a_model_says_the_same_with_drafts(
    tiny_model: LlamaForCausalLM,
    tiny_tokenizer: PreTrainedTokenizerFast,
    sampling: Sampling,
    constraint: Constraint | None,
) -> None:
    engine = LocalEngine(tiny_model, tiny_tokenizer)
    engine.client.step_costs = EqualCosts()  # type: ignore[misc]
    drafted = {True: 0, False: 0}
    sentence = "The quick brown fox jumps over the lazy dog. "
    for text in (f"{sentence * 3}The quick", "1, 2, 3, 4, 5, 6,", f"Repeat: {sentence}\n"):
        request = Request(
            tiny_tokenizer(text)["input_ids"],
            120,
            sampling,
            constraint=constraint,
            top_logprobs=2,
            stop=("lazy dog. T",),
        )
        answers = []
        for speculation in (True, False):
            [generation] = engine.submit([request], Settings(session_cache=0, speculation=speculation))
            answers.append(collected(generation))
            drafted[speculation] += generation.drafted_tokens
        one, other = answers
        assert one.tokens == other.tokens
        assert one.error == other.error
        for piece, expected in zip(one.pieces, other.pieces, strict=True):
            assert (piece.text, piece.finish_reason) == (expected.text, expected.finish_reason)
            assert piece.logprobs is not None
            assert expected.logprobs is not None
            assert piece.logprobs.logprob == pytest.approx(expected.logprobs.logprob, abs=1e-3)
    assert drafted[True] > drafted[False] == 0


def test_turns_of_a_conversation_are_those_without_drafts(
    tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A session that is kept after drafts holds what it would hold without them."""
    turns: dict[bool, list[tuple[list[int], int]]] = {}
    for speculation in (True, False):
        engine = LocalEngine(tiny_model, tiny_tokenizer)
        engine.client.step_costs = EqualCosts()  # type: ignore[misc]
        ids: list[int] = []
        for question in ("Say: one two three one two three one", " two three", " one", " and one two three one two"):
            ids += tiny_tokenizer(question)["input_ids"]
            request = Request(ids, 25, GREEDY)
            [generation] = engine.submit([request], Settings(speculation=speculation))
            answer = collected(generation)
            turns.setdefault(speculation, []).append((answer.tokens, generation.reused_tokens))
            ids = [*ids, *answer.tokens]
        engine.pool.clear()
    assert turns[True] == turns[False]
    assert all(reused for _, reused in turns[True][1:])


@pytest.mark.parametrize("step", range(1, 8))
def test_a_cancelled_row_leaves_no_wrong_tokens(byte_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    request = Request([97, 98, 97, 98], 100, GREEDY)
    generation = Generation(request)
    session = RepeatingSession(
        len(byte_tokenizer), fickle=0.3, before_step=lambda number: number == step and generation.cancel()
    )
    row, parked = Row(generation, byte_tokenizer, []), list[int]()
    decode(session, [row], 1024, lambda: parked.extend(session.ids), speculation=True)
    assert parked == row.ids[: len(parked)]
    assert len(parked) >= len(row.ids) - 1
    assert session.ids == parked


def test_each_step_gets_a_draft_where_the_session_can_roll_back_and_only_there(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    for can_roll_back in (True, False):
        session = RepeatingSession(len(byte_tokenizer), fickle=0.0, can_roll_back=can_roll_back)
        _, generation = answered(byte_tokenizer, Request([97, 98, 97, 98], 60, GREEDY), session)
        assert session.steps[0][:4] == [97, 98, 97, 98]
        assert (len(session.steps[0]) > 4) == can_roll_back
        assert any(len(step) > 1 for step in session.steps[1:]) == can_roll_back
        assert bool(generation.drafted_tokens) == can_roll_back


def test_a_draft_does_not_exceed_what_is_left(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """Neither of the answer, nor of the session, nor of a step."""
    for budget in range(1, 40):
        session = RepeatingSession(len(byte_tokenizer), fickle=0.0)
        answered(byte_tokenizer, Request([97, 98] * 6, budget, GREEDY), session, chunk_tokens=12)
        held = 0
        for step in session.steps:
            assert len(step) <= 12
            held += len(step)
        assert held - sum(12 for _ in session.rolled_back) <= 12 + budget  # roughly, since steps hold wrong tokens
        assert session.position <= 12 + budget - 1


def test_several_rows_send_no_drafts(tiny_model: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LocalEngine(tiny_model, tiny_tokenizer)
    engine.client.step_costs = EqualCosts()  # type: ignore[misc]
    asked = [Request(tiny_tokenizer("one two one two one")["input_ids"], 20, Sampling(seed=seed)) for seed in range(2)]
    generations = engine.submit(asked, Settings(session_cache=0, batch_window=100))
    for generation in generations:
        collected(generation)
    assert engine.rows in ([2], [1, 1])
    assert engine.rows == [1, 1] or not any(generation.drafted_tokens for generation in generations)


def test_what_a_grammar_forces_after_a_draft_is_sent_with_it(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """The grammar knows the end of what the text has not yet repeated."""
    constraint = Constraint(regex_grammar("[ab]c[ab]c(def)?ghijklmno"))
    session = RepeatingSession(len(byte_tokenizer), fickle=0.0, prompt=2, said=b"acacd")
    answer, generation = answered(byte_tokenizer, Request([120, 121], 40, GREEDY, constraint=constraint), session)
    assert bytes(answer.tokens[:16]) == b"acacdefghijklmno"
    assert generation.trips <= 4


@pytest.mark.parametrize("stop", [("b",), ("ab",), ("bca",)])
def test_a_stop_sequence_within_accepted_tokens_ends_the_answer(
    byte_tokenizer: PreTrainedTokenizerFast, stop: Sequence[str]
) -> None:
    text = b"abcabcabcabc"
    session = RepeatingSession(len(byte_tokenizer), prompt=7, said=text)
    answer, _ = answered(byte_tokenizer, Request([*b"abcabcx"], 12, GREEDY, stop=stop), session)
    whole = "".join(piece.text for piece in answer.pieces)
    assert whole == text.decode().partition(stop[0])[0]
    assert answer.pieces[-1].finish_reason == "stop"
    assert answer.parked == [*b"abcabcx", *answer.tokens][: len(answer.parked)]
    assert len(answer.parked) == 7 + len(answer.tokens) - 1
