"""Tokens that a grammar forces: answers are those of a loop that asks the model for each of them, in fewer steps."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_schemas import SAMPLINGS, leaves, nested, rooted
from random_session import answering, text
from scripted_session import ScriptedEngine, ScriptedSession

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.decoding import Row, decode
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.network import CacheLimitError
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.errors import InvalidRequestError, PetalsError, PromptTooLongError
from langchain_petals.grammars import Constraint, Trigger
from langchain_petals.grammars.builders import json_grammar, regex_grammar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedTokenizerFast

    from langchain_petals.engine.constraints.guide import Choosing
    from langchain_petals.pieces import Piece

TOKENIZERS = ("tiny_tokenizer", "merging_tokenizer", "llama_tokenizer", "unigram_tokenizer")
SLOW = settings(
    max_examples=settings.default.max_examples * 3 // 4,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def vocabularies(request: pytest.FixtureRequest) -> dict[str, tuple[Any, Grammars]]:
    tokenizers = {name: request.getfixturevalue(name) for name in TOKENIZERS}
    return {name: (tokenizer, Grammars(tokenizer)) for name, tokenizer in tokenizers.items()}


@pytest.fixture(scope="module")
def seen() -> Iterator[Counter[str]]:
    """Count the tokens of answers under grammars; that running ahead changes nothing shows only where it happens."""
    counter: Counter[str] = Counter()
    yield counter
    assert counter["forced"] > counter["tokens"] / 50, counter


# ---- the same answers


def result(generation: Generation) -> tuple[list[Piece], str]:
    """Return the pieces of a generation, and the error that ended it."""
    pieces: list[Piece] = []
    try:
        pieces.extend(generation)
    except PetalsError as error:
        return pieces, repr(error)
    return pieces, ""


def assert_same(
    seen: Counter[str], tokenizer: Any, requests: Sequence[Request], grammars: Grammars, **session: Any
) -> None:
    """Compare answers of the loop that runs ahead with those of the loop that asks for each token."""
    ahead = answering(tokenizer, requests, grammars, **session)
    asked = answering(tokenizer, requests, grammars, runs_ahead=False, **session)
    for one, other in zip(ahead, asked, strict=True):
        pieces, error = result(one)
        assert (pieces, error) == result(other)
        assert other.forced_tokens == 0
        seen.update(tokens=len(pieces), forced=one.forced_tokens)
    assert max(one.trips for one in ahead) <= max(other.trips for other in asked)


@st.composite
def requests_for(draw: st.DrawFn, tokenizer: Any, *constraints: Constraint | None) -> list[Request]:
    """Return some requests with each constraint; prompts differ in length."""
    word = st.lists(st.integers(33, len(tokenizer) - 1), min_size=1, max_size=2).map(tuple)
    return [
        Request(
            draw(st.lists(st.integers(40, 60), min_size=1, max_size=8)),
            draw(st.integers(2, 60)),
            replace(draw(SAMPLINGS), bad_words_ids=tuple(draw(st.lists(word, max_size=3)))),
            stop=draw(st.sampled_from([(), ("e",), ("a", '"'), (": ",)])),
            end_tokens=draw(st.sampled_from([(), (44,)])),
            top_logprobs=draw(st.sampled_from([None, 0, 2])),
            constraint=constraint,
        )
        for constraint in constraints
        for _ in range(draw(st.integers(1, 3)))
    ]


@SLOW
@given(schema=st.recursive(leaves(), nested, max_leaves=6), data=st.data())
def test_answers_to_schemas_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], seen: Counter[str], schema: dict[str, Any], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(rooted(schema)))
    except InvalidRequestError:
        return
    seed = data.draw(st.integers(0, 999))
    reluctant = [tokenizer.eos_token_id] if data.draw(st.booleans()) else []
    for request in data.draw(requests_for(tokenizer, constraint)):
        assert_same(seen, tokenizer, [request], grammars, seed=seed, reluctant=reluctant)


THOUGHTS = ("<think>", "</think>")
CALLS = (
    Trigger("<call>", json_grammar({"properties": {"a": {"enum": ["b", "c"]}}, "required": ["a"]}, strict=False)),
    Trigger("[x]", 'start: "{" /[a-c]+/ "}" end'),
    Trigger("{", None),
    Trigger("<", 'start: "tool>" /[0-9]*/ "</tool>"', at_start=True),
)
TALK = ("<call>", "[x]", "[x]{ab}", "{", "<", "<tool>4", *THOUGHTS, " ", "ab", "\n", "é", '{"a": "b"}')


@SLOW
@given(data=st.data())
def test_answers_with_calls_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    said = "".join(data.draw(st.lists(st.sampled_from(TALK), max_size=6)))
    triggers = data.draw(st.lists(st.sampled_from(CALLS), min_size=1, max_size=3, unique=True))
    constraint = Constraint(
        triggers=tuple(triggers),
        repeat=data.draw(st.booleans()),
        markers=(("end", data.draw(st.sampled_from(["</s>", "</x>"]))),),
        reasoning=data.draw(st.sampled_from([None, THOUGHTS])),
        reasoning_begun=data.draw(st.booleans()),
    )
    ids = tokenizer(said, add_special_tokens=False)["input_ids"]
    for request in data.draw(requests_for(tokenizer, constraint)):
        assert_same(Counter(), tokenizer, [request], grammars, seed=data.draw(st.integers(0, 999)), said=ids)


@SLOW
@given(schema=st.recursive(leaves(), nested, max_leaves=3), data=st.data())
def test_answers_in_lockstep_do_not_depend_on_running_ahead(
    vocabularies: dict[str, tuple[Any, Grammars]], seen: Counter[str], schema: dict[str, Any], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(rooted(schema)))
    except InvalidRequestError:
        return
    person = Constraint(json_grammar({"properties": {"name": {"type": "string"}}, "required": ["name"]}))
    drawn = data.draw(st.lists(st.sampled_from([constraint, person, None]), min_size=2, max_size=4))
    assert_same(
        seen, tokenizer, data.draw(requests_for(tokenizer, *drawn)), grammars, seed=data.draw(st.integers(0, 999))
    )


# ---- fewer steps

GREEDY = Sampling(greedy=True)
VOCABULARY = 512


def asked(expression: str, prompt: bytes = b"go", budget: int = 40, **more: Any) -> Request:
    return Request([*prompt], budget, GREEDY, constraint=Constraint(regex_grammar(expression)), **more)


def started(tokenizer: Any, session: ScriptedSession, *requests: Request, chunk_tokens: int = 1024) -> list[Generation]:
    """Run requests in a session to their ends."""
    grammars, generations = Grammars(tokenizer), [Generation(request) for request in requests]
    rows = []
    for each in generations:
        guide = None if each.request.constraint is None else grammars.guide(each.request.constraint, [])
        rows.append(Row(each, tokenizer, [], guide, vocabulary=VOCABULARY))
        rows[-1].run_ahead()
    decode(session, rows, chunk_tokens, lambda: None)
    return generations


def fed(session: ScriptedSession, row: int = 0) -> list[bytes]:
    """Return what each step sent for a row."""
    return [bytes(step[row]) for step in session.steps]


def test_forced_text_is_sent_with_what_comes_before_it(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go"], [b"abcXdefY."])
    [generation] = started(byte_tokenizer, session, asked("abc[XY]def[XY]\\."))
    pieces = list(generation)
    assert text(pieces) == "abcXdefY."
    assert [piece.generated for piece in pieces] == [*range(1, 10)]
    assert [piece.finish_reason for piece in pieces] == [None] * 8 + ["stop"]
    assert fed(session) == [b"goabc", b"Xdef"]
    assert (generation.trips, generation.forced_tokens) == (2, 7)


@pytest.mark.parametrize("chunk_tokens", [1, 2, 3, 7])
def test_a_long_forced_text_is_sent_in_chunks(byte_tokenizer: PreTrainedTokenizerFast, chunk_tokens: int) -> None:
    session = ScriptedSession([b"go"], [b"abcdefgX"])
    [generation] = started(byte_tokenizer, session, asked("abcdefg[XY]"), chunk_tokens=chunk_tokens)
    assert text(list(generation)) == "abcdefgX"
    assert b"".join(fed(session)) == b"goabcdefg"
    assert max(map(len, fed(session))) <= chunk_tokens


def test_rows_in_lockstep_are_sent_as_far_as_the_shortest_is_known(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go", b"gone"], [b"abcXdefX", b"pqXrstX"])
    both = started(byte_tokenizer, session, asked("abc[XY]def[XY]"), asked("pq[XY]rst[XY]", b"gone"))
    assert [text(list(each)) for each in both] == ["abcXdefX", "pqXrstX"]
    assert fed(session, 0) == [b"goabc", b"X", b"def", b"X"]  # the last one, since its row is done
    assert fed(session, 1) == [b"gonep", b"q", b"Xrs", b"t"]


def test_a_free_row_in_lockstep_is_asked_for_each_token(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go", b"go"], [b"abcX", b"free"])
    forced, free = started(byte_tokenizer, session, asked("abc[XY]"), Request([*b"go"], 4, GREEDY))
    assert [text(list(each)) for each in (forced, free)] == ["abcX", "free"]
    assert len(session.steps) == 4
    assert (free.trips, free.forced_tokens) == (4, 0)


def test_an_answer_is_wound_up_without_steps(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    grammar = json_grammar({"properties": {"a": {"type": "string"}, "b": {"enum": ["cd"]}}, "required": ["a", "b"]})
    request = Request([*b"go"], 40, GREEDY, constraint=Constraint(grammar))
    session = ScriptedSession([b"go"], [b'{"a": "' + b"x" * 60])
    [generation] = started(byte_tokenizer, session, request)
    pieces = list(generation)
    assert text(pieces).endswith('x", "b": "cd"}')
    assert pieces[-1].cut
    assert generation.trips + generation.forced_tokens == len(pieces)
    assert generation.forced_tokens > len('{"a": "') + len('", "b": "cd"}') - 4


# ---- answers without any step


def engine_over(tokenizer: Any, *sessions: ScriptedSession) -> ScriptedEngine:
    left = iter(sessions)
    return ScriptedEngine(tokenizer, lambda _: next(left), vocabulary_size=VOCABULARY)


def test_an_answer_that_is_forced_as_a_whole_opens_no_session(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = engine_over(byte_tokenizer)
    [generation] = engine.submit([asked("abc", top_logprobs=1)], Settings())
    pieces = list(generation)
    assert text(pieces) == "abc"
    assert [piece.finish_reason for piece in pieces] == [None, None, "stop"]
    assert all(piece.logprobs and piece.logprobs.logprob == 0 for piece in pieces)
    assert not engine.opened
    assert (generation.trips, generation.forced_tokens) == (0, 3)


def test_a_session_is_kept_where_an_answer_needs_no_step(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go"], [b"X"], held=b"go")
    engine = engine_over(byte_tokenizer)
    engine.pool.park(session, Settings())
    [generation] = engine.submit([asked("abc", b"gone")], Settings())
    assert text(list(generation)) == "abc"
    assert engine.pool.lease([*b"gone"], 10) is session


def test_a_grammar_without_room_fails_before_a_session_is_opened(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = engine_over(byte_tokenizer)
    [generation] = engine.submit([asked("abc", budget=2)], Settings())
    with pytest.raises(PetalsError, match="the shortest found has 3"):
        list(generation)
    assert not engine.opened


def test_the_rest_of_a_group_runs_without_the_rows_that_need_no_step(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go"], [b"X"])
    engine = engine_over(byte_tokenizer, session)
    whole, short = engine.submit([asked("abc"), asked("[XY]")], Settings(session_cache=0))
    assert [text(list(each)) for each in (whole, short)] == ["abc", "X"]
    assert [rows for rows, _ in engine.opened] == [1]


# ---- what is delivered, and when


def test_an_error_of_the_first_step_comes_before_any_text(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"go"], [b"abcX"], failures={0: ConnectionError("gone")})
    [generation] = engine_over(byte_tokenizer, session).submit([asked("abc[XY]")], Settings(session_cache=0))
    with pytest.raises(ConnectionError, match="gone"):
        next(iter(generation))


def test_forced_text_is_delivered_after_the_step_that_fed_the_prompt(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    generations: list[Generation] = []
    waiting: list[int] = []
    session = ScriptedSession(
        [b"go", b"gone"],
        [b"abcXd", b"abcXd"],
        before_step=lambda _: waiting.extend(each._events.qsize() for each in generations),
    )
    grammars = Grammars(byte_tokenizer)
    rows = []
    for request in (asked("abc[XY]d"), asked("abc[XY]d", b"gone")):
        generations.append(Generation(request))
        guide = grammars.guide(request.constraint, [])
        rows.append(Row(generations[-1], byte_tokenizer, [], guide, vocabulary=VOCABULARY))
        rows[-1].run_ahead()
        rows[-1].deliver()
    decode(session, rows, 6, lambda: None)  # steps of three tokens
    assert waiting == [0, 0, 3, 0, 5, 3]


@pytest.mark.parametrize(
    ("chunk_tokens", "held", "reports"),
    [
        (1024, b"", [(6, 6)]),
        (4, b"", [(4, 6), (6, 6)]),
        (5, b"abc", [(6, 6)]),
        (2, b"abc", [(5, 6), (6, 6)]),
    ],
)
def test_forced_text_is_no_progress_of_the_prompt(
    byte_tokenizer: PreTrainedTokenizerFast, chunk_tokens: int, held: bytes, reports: list[tuple[int, int]]
) -> None:
    heard: list[tuple[int, int]] = []
    session = ScriptedSession([b"abcdef"], [b"pqrX"], held=held)
    request = asked("pqr[XY]", b"abcdef", on_prefill=lambda sent, total: heard.append((sent, total)))
    [generation] = started(byte_tokenizer, session, request, chunk_tokens=chunk_tokens)
    assert text(list(generation)) == "pqrX"
    assert heard == reports
    assert generation.reused_tokens == len(held)


def test_an_error_while_the_prompt_is_reported_comes_before_any_text(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    def complain(sent: int, total: int) -> None:
        msg = f"{sent} of {total}"
        raise RuntimeError(msg)

    session = ScriptedSession([b"go"], [b"abcX"])
    [generation] = started(byte_tokenizer, session, asked("abc[XY]", on_prefill=complain))
    with pytest.raises(RuntimeError, match="2 of 2"):
        next(iter(generation))


def test_a_cancelled_row_does_not_run_ahead(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = engine_over(byte_tokenizer)
    generation = Generation(asked("abc", timeout=1e-9))
    engine._run([generation], Settings())
    assert generation._events.empty()
    assert not engine.opened


@pytest.mark.parametrize("step", range(3))
def test_a_row_that_is_cancelled_leaves_the_others_alone(byte_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    generations: list[Generation] = []
    session = ScriptedSession(
        [b"go", b"gone"],
        [b"aXbcdXe", b"abcXdX"],
        before_step=lambda number: generations[0].cancel() if number == step else None,
    )
    grammars = Grammars(byte_tokenizer)
    requests = asked("a[XY]bcd[XY]e"), asked("abc[XY]d[XY]", b"gone")
    generations += [Generation(request) for request in requests]
    rows = [
        Row(each, byte_tokenizer, [], grammars.guide(each.request.constraint, []), vocabulary=VOCABULARY)
        for each in generations
    ]
    for row in rows:
        row.run_ahead()
    decode(session, rows, 1024, lambda: None)
    assert text(list(generations[1])) == "abcXdX"


def test_the_session_of_an_answer_with_a_forced_end_holds_a_beginning_of_it(
    byte_tokenizer: PreTrainedTokenizerFast,
) -> None:
    session = ScriptedSession([b"go"], [b"abXcdef"])
    engine = engine_over(byte_tokenizer, session)
    [generation] = engine.submit([asked("ab[XY]cdef")], Settings())
    assert text(list(generation)) == "abXcdef"
    assert bytes(session.ids) == b"goab"
    assert engine.pool.lease([*b"goabXcdef", 10], 20) is session


# ---- servers with less room than requested


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 20, 30])
def test_a_row_that_has_run_ahead_begins_anew_where_servers_have_less_room(
    byte_tokenizer: PreTrainedTokenizerFast, limit: int
) -> None:
    """What was forced for a large budget need not be what is forced for a small one."""
    grammar = regex_grammar("ab(cd[XY]*efghijk|[QR]z)")
    answer = b"abcdXXXXXXXX"
    outcomes = []
    for runs_ahead in (True, False):
        first = ScriptedSession([b"go"], [answer], failures={0: CacheLimitError(limit)})
        engine = engine_over(byte_tokenizer, first, ScriptedSession([b"go"], [answer]))
        request = Request([*b"go"], 40, GREEDY, constraint=Constraint(grammar))
        [generation] = engine.submit([request], Settings(session_cache=0, runs_ahead=runs_ahead))
        outcomes.append(result(generation))
        assert generation.trips <= len(outcomes[-1][0]) + 2
    assert outcomes[0] == outcomes[1]
    assert (PromptTooLongError.__name__ in outcomes[0][1]) == (limit <= 2)


def test_text_that_was_delivered_stays_where_servers_have_less_room(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    first = ScriptedSession([b"go"], [b"abXcdXXXXXXXX"], failures={1: CacheLimitError(13)})
    engine = engine_over(byte_tokenizer, first, ScriptedSession([b"go"], [b"abXcdXXXXXXXX"]))
    [generation] = engine.submit([asked("ab[XY]cd[XY]*ef")], Settings(session_cache=0))
    pieces = list(generation)
    assert text(pieces) == "abXcdXXXXef"
    assert pieces[-1].finish_reason == "length"


# ---- what a grammar allows of a guess


@pytest.mark.parametrize(
    ("expression", "guess", "foreseen", "forced"),
    [
        ("abc[XY]def", b"abc", b"abc", 0),
        ("[XY]def", b"X", b"Xdef", 3),
        ("[XY]def", b"Xdz", b"Xdef", 2),
        ("[XY]def", b"Z", b"", 0),
        ("[a-z]+", b"abc", b"abc", 0),
        ("[XY]defghijkl", b"X", b"Xdefghij", 7),
    ],
)
def test_a_guess_goes_on_with_what_the_grammar_forces(
    byte_tokenizer: PreTrainedTokenizerFast, expression: str, guess: bytes, foreseen: bytes, forced: int
) -> None:
    guide = Grammars(byte_tokenizer).guide(Constraint(regex_grammar(expression)), [])
    assert guide.foresee([*guess], 8, VOCABULARY) == ([*foreseen], forced)


def test_forced_text_is_foreseen_where_a_model_may_write_it_in_several_tokens(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    guide = Grammars(tiny_tokenizer).guide(Constraint(regex_grammar(r'\{"restaurant": "[a-z]+"\}')), [])
    begun = tiny_tokenizer.encode('{"restaurant', add_special_tokens=False)
    foreseen, forced = guide.foresee(begun, 20, len(tiny_tokenizer))
    assert tiny_tokenizer.decode(foreseen) == '{"restaurant": "'
    assert foreseen[: len(foreseen) - forced] == begun


def test_a_guess_ends_before_a_special_token_that_is_forced_with_text(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    constraint = Constraint('start: "ab" END', markers=(("END", "<tool_call>"),))
    guide = Grammars(tiny_tokenizer).guide(constraint, [])
    foreseen, _ = guide.foresee([], 20, len(tiny_tokenizer))
    assert tiny_tokenizer.decode(foreseen).startswith("ab")


def test_a_guess_may_hold_a_call(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    constraint = Constraint(triggers=(Trigger("<call>", 'start: "(" /[0-9]/ ")."'), Trigger("{", None)))
    guide = Grammars(byte_tokenizer).guide(constraint, [258])
    assert guide.foresee([*b"so <call>"], 20, VOCABULARY) == ([*b"so <call>("], 1)
    assert guide.foresee([*b"so <call>(1x"], 20, VOCABULARY) == ([*b"so <call>(1)."], 2)
    assert guide.foresee([*b"so {"], 20, VOCABULARY) == ([*b"so "], 0)
    assert guide.foresee([*b"so", 258, *b"so"], 20, VOCABULARY) == ([*b"so"], 0)
    assert guide.foresee([*b"so far"], 4, VOCABULARY) == ([*b"so f"], 0)


def test_a_guess_may_hold_a_call_that_goes_on_after_it(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    """How many tokens a guess may have says nothing about how long the answer may be."""
    constraint = Constraint(triggers=(Trigger("<call>", 'start: "(to: " /[a-z]{50}/ ")."'),))
    guide = Grammars(byte_tokenizer).guide(constraint, [258])
    assert guide.foresee([*b"<call>"], 20, VOCABULARY) == ([*b"<call>(to: "], 5)
    assert guide.foresee([*b"<call>(to: abc"], 20, VOCABULARY) == ([*b"<call>(to: abc"], 0)


def took(choosing: Choosing, token: int) -> bool:
    """Return whether a guide took a token."""
    try:
        choosing.send(token)
    except StopIteration:
        return True
    return False


@SLOW
@given(schema=st.recursive(leaves(), nested, max_leaves=4), data=st.data())
def test_looking_at_a_guess_changes_nothing(
    vocabularies: dict[str, tuple[Any, Grammars]], schema: dict[str, Any], data: st.DataObject
) -> None:
    tokenizer, grammars = vocabularies[data.draw(st.sampled_from(TOKENIZERS))]
    try:
        constraint = Constraint(json_grammar(rooted(schema)))
    except InvalidRequestError:
        return
    guide, other = (grammars.guide(constraint, [tokenizer.eos_token_id]) for _ in range(2))
    for _ in range(20):
        guide.foresee(data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=4)), 9, len(tokenizer))
        choosing, same = guide.choose(1_000), other.choose(1_000)
        mask, expected = next(choosing), next(same)
        assert (mask is None) == (expected is None)
        if mask is None or expected is None:
            return
        assert mask.tolist() == expected.tolist()
        token = data.draw(st.sampled_from(mask.nonzero()[0].tolist()))
        if not (took(choosing, token) and took(same, token)) or guide.finished:
            return
