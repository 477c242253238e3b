"""The token loop over a scripted session: tokens that are fed, pieces, and endings."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scripted_session import ScriptedEngine, ScriptedSession

from langchain_petals.engine.decoding import Row, decode
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.network import CacheLimitError
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.engine.threads import start_thread
from langchain_petals.errors import InvalidRequestError, PromptTooLongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerFast

    from langchain_petals.pieces import Piece

GREEDY = Sampling(greedy=True)
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class NothingMoreError(Exception):
    """Marks the end of the pieces of a generation that has no final piece."""


def collected(generation: Generation) -> list[Piece]:
    """Return the pieces that a generation has so far."""
    generation.put(NothingMoreError())
    pieces: list[Piece] = []
    try:
        pieces.extend(generation)
    except NothingMoreError:
        return pieces
    return pieces


def asked(prompt: Sequence[int], max_new_tokens: int, **more: Any) -> Request:
    return Request(list(prompt), max_new_tokens, sampling=GREEDY, top_logprobs=0, **more)


def run(
    session: ScriptedSession,
    requests: Sequence[Request],
    tokenizer: Any,
    *,
    end_tokens: Sequence[int] = (),
    chunk_tokens: int = 1024,
) -> list[list[Piece]]:
    """Run the loop to its end, and return each row's pieces."""
    generations = [Generation(request) for request in requests]
    rows = [Row(generation, tokenizer, end_tokens) for generation in generations]
    decode(session, rows, chunk_tokens, lambda: None)
    return [collected(generation) for generation in generations]


def tokens(pieces: Sequence[Piece]) -> list[int]:
    return [piece.logprobs.token for piece in pieces if piece.logprobs]


def text(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


# ---- what is fed


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Return prompts and answers of unequal lengths, in ASCII."""
    rows = draw(st.integers(1, 5))
    token = st.integers(32, 126)
    prompts = [draw(st.lists(token, min_size=1, max_size=12)) for _ in range(rows)]
    return prompts, [draw(st.lists(token, min_size=1, max_size=8)) for _ in range(rows)]


@given(batch=batches(), chunk_tokens=st.integers(1, 30))
def test_rows_of_unequal_length_are_fed_their_own_tokens(
    tiny_tokenizer: PreTrainedTokenizerFast, batch: tuple[list[list[int]], list[list[int]]], chunk_tokens: int
) -> None:
    prompts, answers = batch
    session = ScriptedSession(prompts, answers)
    requests = [asked(prompt, len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    pieces = run(session, requests, tiny_tokenizer, chunk_tokens=chunk_tokens)

    assert [tokens(each) for each in pieces] == answers
    assert [text(each) for each in pieces] == [bytes(answer).decode() for answer in answers]
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        own = [*prompt, *answer[:-1]]  # nothing comes after the last token, so it need not be fed
        fed = session.fed(row)
        assert fed[: len(own)] == own
        assert set(fed[len(own) :]) <= {answer[-1]}
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
    assert session.position == longest - 1
    for step in session.steps:
        assert len({len(row) for row in step}) == 1
        assert len(step) * len(step[0]) <= max(chunk_tokens, len(step))


def test_prompt_is_fed_in_one_step_up_to_the_end_of_the_shortest(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [b"abcdef", b"abcd"]
    session = ScriptedSession(prompts, [b"xy", b"uvw"])
    run(session, [asked(prompts[0], 2), asked(prompts[1], 3)], tiny_tokenizer)
    assert [[bytes(row) for row in step] for step in session.steps] == [
        [b"abcd", b"abcd"],
        [b"e", b"u"],
        [b"f", b"v"],
        [b"x", b"w"],
    ]


def test_session_that_holds_the_beginning_of_a_prompt_is_fed_the_rest(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    session = ScriptedSession([b"abcdef"], [b"xyz"], held=b"abcd")
    generation = Generation(asked(b"abcdef", 3))
    decode(session, [Row(generation, tiny_tokenizer, ())], 1024, lambda: None)
    assert [bytes(step[0]) for step in session.steps] == [b"ef", b"x", b"y"]
    assert text(collected(generation)) == "xyz"
    assert generation.reused_tokens == 4


@pytest.mark.parametrize(
    ("chunk_tokens", "held", "reports"),
    [
        (1024, b"", [(6, 6)]),
        (4, b"", [(4, 6), (6, 6)]),
        (1, b"", [(n, 6) for n in range(1, 7)]),
        (2, b"abc", [(5, 6), (6, 6)]),
    ],
)
def test_progress_of_the_prompt_is_reported(
    tiny_tokenizer: PreTrainedTokenizerFast, chunk_tokens: int, held: bytes, reports: list[tuple[int, int]]
) -> None:
    heard: list[tuple[int, int]] = []
    session = ScriptedSession([b"abcdef"], [b"xyz"], held=held)
    request = asked(b"abcdef", 3, on_prefill=lambda sent, total: heard.append((sent, total)))
    run(session, [request], tiny_tokenizer, chunk_tokens=chunk_tokens)
    assert heard == reports


# ---- pieces


def test_each_token_is_a_piece_with_the_number_of_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    answer = "é花!".encode()
    [pieces] = run(ScriptedSession([b"a"], [answer]), [asked(b"a", len(answer))], tiny_tokenizer)
    assert [piece.text for piece in pieces] == ["", "é", "", "", "花", "!"]
    assert [piece.generated for piece in pieces] == [1, 2, 3, 4, 5, 6]
    assert [piece.finish_reason for piece in pieces] == [None] * 5 + ["length"]


@pytest.mark.parametrize(
    ("answer", "budget", "stop", "said", "generated", "reason"),
    [
        pytest.param(b"abcdef", 3, [], "abc", 3, "length", id="out of budget"),
        pytest.param(b"a", 1, [], "a", 1, "length", id="budget of one"),
        pytest.param(b"ab;cd", 9, [], "ab", 3, "stop", id="end token"),
        pytest.param(b"ab|cd", 9, [], "ab", 3, "stop", id="another end token"),
        pytest.param(b";abc", 9, [], "", 1, "stop", id="end token at once"),
        pytest.param(b"ab;", 3, [], "ab", 3, "stop", id="end token as the last of the budget"),
        pytest.param(b"abcd", 9, ["c"], "ab", 3, "stop", id="stop sequence"),
        pytest.param(b"abc", 3, ["bc"], "a", 3, "stop", id="stop sequence as the last of the budget"),
        pytest.param(b"abcd", 9, ["abc", "b"], "a", 2, "stop", id="first stop sequence to be complete"),
        pytest.param(b"abcX", 3, ["bcX"], "abc", 3, "length", id="half a stop sequence at the end of the budget"),
        pytest.param(b"abc;", 9, ["bcX"], "abc", 4, "stop", id="half a stop sequence before an end token"),
        pytest.param(b"ab;c", 9, ["b;c"], "ab", 3, "stop", id="end token inside a stop sequence"),
        pytest.param("花花".encode(), 4, [], f"花{UNFINISHED}", 4, "length", id="half a character in the end"),
        pytest.param("花花".encode()[:4] + b";", 9, [], f"花{UNFINISHED}", 5, "stop", id="end token in a character"),
        pytest.param("a花b".encode(), 9, ["花"], "a", 4, "stop", id="stop sequence of three tokens"),
        pytest.param(b"\xe8\x8a", 2, [UNFINISHED], "", 2, "stop", id="stop sequence in what is flushed"),
    ],
)
def test_answer_ends_with_its_finish_reason(  # noqa: PLR0917 - pytest passes them by name
    tiny_tokenizer: PreTrainedTokenizerFast,
    answer: bytes,
    budget: int,
    stop: list[str],
    said: str,
    generated: int,
    reason: str,
) -> None:
    session = ScriptedSession([b"prompt"], [answer])
    [pieces] = run(session, [asked(b"prompt", budget, stop=stop)], tiny_tokenizer, end_tokens=[*b";|"])
    assert text(pieces) == said
    assert len(pieces) == generated
    assert pieces[-1].generated == generated
    assert [piece.finish_reason for piece in pieces] == [None] * (generated - 1) + [reason]
    assert len(session.steps) == generated


@pytest.mark.parametrize("stop", ["q", "uick", "ick b", "he q", "fox", "fox jumps", "x j", "s", " ", "the", "\n"])
def test_stop_sequences_begin_and_end_anywhere_in_tokens(merging_tokenizer: PreTrainedTokenizerFast, stop: str) -> None:
    whole = "the quick brown fox jumps over"
    prompt, answer = merging_tokenizer("AI:")["input_ids"], merging_tokenizer(whole)["input_ids"]
    assert len(answer) < len(whole)
    request = asked(prompt, len(answer), stop=[stop])
    [pieces] = run(ScriptedSession([prompt], [answer]), [request], merging_tokenizer)
    assert text(pieces) == whole.partition(stop)[0]
    assert pieces[-1].finish_reason == ("stop" if stop in whole else "length")


WORDS = st.lists(
    st.sampled_from(["the fox", " fox", "AI:", "\n", "花の木", "🌸", "é", " 1, 2", "."]), min_size=1, max_size=8
)


@given(words=WORDS, data=st.data())
def test_text_ends_where_the_first_stop_sequence_begins(
    merging_tokenizer: PreTrainedTokenizerFast, words: list[str], data: st.DataObject
) -> None:
    whole = "".join(words)
    starts = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4))
    stops = [whole[start : start + data.draw(st.integers(1, 5))] for start in starts]
    prompt, answer = merging_tokenizer("AI:")["input_ids"], merging_tokenizer(whole)["input_ids"]
    session = ScriptedSession([prompt], [answer])
    [pieces] = run(session, [asked(prompt, len(answer), stop=stops)], merging_tokenizer)
    _, cut = min(((whole.find(stop) + len(stop), whole.find(stop)) for stop in stops), default=(0, len(whole)))
    assert text(pieces) == whole[:cut]
    assert pieces[-1].finish_reason == ("stop" if stops else "length")


@pytest.mark.parametrize("name", ["merging_tokenizer", "llama_tokenizer", "unigram_tokenizer"])
@given(
    prompt=st.text(st.sampled_from("뷁花𠀋🌸é x:"), min_size=1, max_size=12),
    answer=st.text(st.sampled_from("뷁花𠀋🌸é x:"), min_size=1, max_size=12),
)
def test_text_is_what_follows_the_prompt_when_both_are_decoded(
    name: str, request: pytest.FixtureRequest, prompt: str, answer: str
) -> None:
    """The detokenizer uses only the end of a prompt, which may begin inside a character."""
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(name)
    before, ids = (tokenizer(each, add_special_tokens=False)["input_ids"] for each in (prompt, answer))
    if tokenizer.convert_ids_to_tokens(ids[0]) == "▁":  # the answer goes on in the middle of a word
        ids = ids[1:]
    assume(ids)
    expected = tokenizer.decode([*before, *ids]).removeprefix(tokenizer.decode(before))
    [pieces] = run(ScriptedSession([before], [ids]), [asked(before, len(ids))], tokenizer)
    assert text(pieces) == expected


# ---- cancellation, deadlines, errors


@pytest.mark.parametrize("step", range(6))
def test_cancelled_row_is_dropped_within_a_step(tiny_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    generation = Generation(asked(b"abc", 6))
    session = ScriptedSession([b"abc"], [b"uvwxyz"], before_step=lambda n: generation.cancel() if n == step else None)
    decode(session, [Row(generation, tiny_tokenizer, ())], 1024, lambda: None)
    assert len(session.steps) == step + 1
    assert text(collected(generation)) == "uvwxyz"[:step]


def test_row_that_was_cancelled_before_the_start_is_not_fed(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    generation = Generation(asked(b"abc", 6))
    generation.cancel()
    session = ScriptedSession([b"abc"], [b"uvwxyz"])
    decode(session, [Row(generation, tiny_tokenizer, ())], 1024, lambda: None)
    assert not session.steps


@pytest.mark.parametrize("step", range(8))
@pytest.mark.parametrize("gone", range(3))
def test_cancelled_row_does_not_disturb_the_others(
    tiny_tokenizer: PreTrainedTokenizerFast, step: int, gone: int
) -> None:
    prompts, answers = [b"ab", b"abcde", b"abcdefg"], [b"pqrstuv", b"qrs", b"r;"]
    generations = [Generation(asked(prompt, 7)) for prompt in prompts]
    session = ScriptedSession(prompts, answers, before_step=lambda n: generations[gone].cancel() if n == step else None)
    rows = [Row(generation, tiny_tokenizer, [*b";", 0]) for generation in generations]
    decode(session, rows, 1024, lambda: None)
    said = ["pqrstuv", "qrs", "r"]
    for row, generation in enumerate(generations):
        pieces = collected(generation)
        if row == gone:
            assert said[row].startswith(text(pieces))
        else:
            assert text(pieces) == said[row]
            assert pieces[-1].finish_reason is not None


def test_deadline_ends_a_row_as_a_cancellation_does(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    late = Generation(asked(b"abc", 5, timeout=1e-9))
    others = Generation(asked(b"abc", 2))
    session = ScriptedSession([b"abc", b"abc"], [b"uvwxy", b"uv"])
    decode(session, [Row(each, tiny_tokenizer, ()) for each in (late, others)], 1024, lambda: None)
    assert len(session.steps) == 2
    assert text(collected(others)) == "uv"


def test_error_in_one_row_ends_that_row_only(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    def complain(sent: int, total: int) -> None:
        msg = f"{sent} of {total}"
        raise RuntimeError(msg)

    generations = [Generation(asked(b"abc", 3, on_prefill=complain)), Generation(asked(b"abc", 3))]
    session = ScriptedSession([b"abc", b"abc"], [b"xyz", b"uvw"])
    decode(session, [Row(each, tiny_tokenizer, ()) for each in generations], 1024, lambda: None)
    with pytest.raises(RuntimeError, match="3 of 3"):
        next(iter(generations[0]))
    assert text(collected(generations[1])) == "uvw"


def test_final_piece_is_delivered_after_the_session_is_parked(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    """The caller's next request, which may come at once, must find the session."""
    generations = [Generation(asked(b"ab", 2)), Generation(asked(b"abcd", 2))]
    session = ScriptedSession([b"ab", b"abcd"], [b"xy", b"uv"])
    heard_before: list[list[str]] = []

    def put_away() -> None:
        heard_before.append([text(collected(generation)) for generation in generations])

    decode(session, [Row(each, tiny_tokenizer, ()) for each in generations], 1024, put_away)
    assert heard_before == [["xy", "u"]]


# ---- the session is closed or parked


def submitted(engine: ScriptedEngine, requests: Sequence[Request]) -> list[Generation]:
    """Start requests as one group, in a session that will not be kept."""
    generations = [Generation(request) for request in requests]
    start_thread(engine._run, generations, Settings(session_cache=0))
    return generations


@pytest.mark.parametrize("step", range(5))
def test_error_of_a_step_reaches_every_running_row(tiny_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    prompts, answers = [b"ab", b"abc", b"abcd"], [b"x", b"yz", b"uvw"]
    session = ScriptedSession(prompts, answers, failures={step: ConnectionError("gone")})
    engine = ScriptedEngine(tiny_tokenizer, lambda _: session)
    requests = [asked(prompt, len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    for row, generation in enumerate(submitted(engine, requests)):
        end = (1, 3, 5)[row]  # the number of steps that the row needs
        pieces: list[Piece] = []
        if end <= step:
            pieces.extend(generation)
            assert pieces[-1].finish_reason == "length"
        else:
            with pytest.raises(ConnectionError, match="gone"):
                pieces.extend(generation)
        assert answers[row].decode().startswith(text(pieces))
        assert len(pieces) == max(0, min(len(answers[row]), step - row))
    assert session.closed.wait(10)
    assert len(session.steps) == step + 1


@pytest.mark.parametrize("step", range(4))
def test_cancellation_closes_the_session(tiny_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    handles = threading.Event()
    generations: list[Generation] = []

    def before_step(number: int) -> None:
        handles.wait(10)
        if number == step:
            for generation in generations:
                generation.cancel()

    session = ScriptedSession([b"ab", b"abc"], [b"uvwxyz"] * 2, before_step=before_step)
    engine = ScriptedEngine(tiny_tokenizer, lambda _: session)
    generations += submitted(engine, [asked(b"ab", 6), asked(b"abc", 6)])
    handles.set()
    assert session.closed.wait(10)
    assert len(session.steps) == step + 1


@pytest.mark.parametrize("step", range(4))
def test_session_of_a_cancelled_row_is_parked(tiny_tokenizer: PreTrainedTokenizerFast, step: int) -> None:
    """The user who stops an answer may continue the conversation."""
    generation = Generation(asked(b"ab", 6))
    session = ScriptedSession([b"ab"], [b"uvwxyz"], before_step=lambda n: generation.cancel() if n == step else None)
    engine = ScriptedEngine(tiny_tokenizer, lambda _: session)
    engine._run([generation], Settings())
    assert len(session.steps) == step + 1
    assert engine.pool.lease(b"abuvwxyz", 10) is session


def test_no_session_is_opened_for_a_row_that_was_cancelled(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    generation = Generation(asked(b"ab", 6))
    generation.cancel()
    engine = ScriptedEngine(tiny_tokenizer, lambda _: ScriptedSession([b"ab"], [b"uvwxyz"]))
    engine._run([generation], Settings())
    assert not engine.opened
    assert len(engine.pool) == 0


def test_complete_answer_is_delivered_even_if_its_session_cannot_be_parked(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    engine = ScriptedEngine(tiny_tokenizer, lambda _: ScriptedSession([b"ab"], [b"xy"]))

    def refuse(*_: object, **__: object) -> None:
        msg = "no more threads"
        raise RuntimeError(msg)

    engine.pool.park = refuse  # type: ignore[method-assign]
    generation = Generation(asked(b"ab", 2))
    engine._run([generation], Settings())
    assert text(collected(generation)) == "xy"


def test_error_of_a_session_that_cannot_open_reaches_every_row(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    def refuse(rows: int) -> ScriptedSession:
        msg = f"no session for {rows} rows"
        raise ConnectionError(msg)

    generations = submitted(ScriptedEngine(tiny_tokenizer, refuse), [asked(b"ab", 2), asked(b"abc", 2)])
    for generation in generations:
        with pytest.raises(ConnectionError, match="no session for 2 rows"):
            list(generation)


# ---- servers with less room than requested


def limited(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[bytes], answer: bytes, limits: Sequence[tuple[int, int]]
) -> ScriptedEngine:
    """Return an engine whose sessions fail at a step, one after the other, for lack of room."""
    left = iter(limits)

    def open_session(rows: int) -> ScriptedSession:
        step, limit = next(left, (-1, 0))
        return ScriptedSession(prompts[-rows:], [answer] * rows, failures={step: CacheLimitError(limit)})

    return ScriptedEngine(tokenizer, open_session)


def test_answer_is_cut_to_the_servers_room(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = limited(tiny_tokenizer, [b"abc"], b"uvwxyz", [(0, 8), (0, 7)])
    [generation] = submitted(engine, [asked(b"abc", 6)])
    pieces = list(generation)
    assert text(pieces) == "uvwx"
    assert pieces[-1].finish_reason == "length"
    assert engine.opened == [(1, 9), (1, 8), (1, 7)]


@pytest.mark.parametrize(("limit", "said"), [(9, "uvwxyz"), (8, "uvwxy"), (7, "uvwx"), (6, "uvw"), (4, "uvw")])
def test_servers_room_may_shrink_during_an_answer(
    tiny_tokenizer: PreTrainedTokenizerFast, limit: int, said: str
) -> None:
    """The server that replaces another has less room; pieces that were delivered stay."""
    engine = limited(tiny_tokenizer, [b"abc"], b"uvwxyz", [(3, limit)])
    [generation] = submitted(engine, [asked(b"abc", 6)])
    pieces = list(generation)
    assert text(pieces) == said
    assert [piece.finish_reason for piece in pieces] == [None] * (len(pieces) - 1) + ["length"]
    assert pieces[-1].generated == len(said)


def test_only_the_prompt_without_room_for_an_answer_fails(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = limited(tiny_tokenizer, [b"abcdef", b"abc"], b"uv", [(0, 6)])
    long, short = submitted(engine, [asked(b"abcdef", 2), asked(b"abc", 2)])
    with pytest.raises(PromptTooLongError, match="6 tokens, but the context holds 6"):
        list(long)
    assert text(list(short)) == "uv"


# ---- requests that cannot run


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(Sampling(bad_words_ids=((),)), id="empty bad word"),
        pytest.param(Sampling(bad_words_ids=((-1,),)), id="bad word of no token"),
        pytest.param(Sampling(bad_words_ids=((512,),)), id="bad word beyond the vocabulary"),
        pytest.param(Sampling(seed=2**70), id="seed beyond 64 bits"),
    ],
)
def test_request_that_cannot_run_does_not_fail_other_rows(
    tiny_tokenizer: PreTrainedTokenizerFast, bad: Sampling
) -> None:
    """Requests of different threads of a program run together."""
    engine = ScriptedEngine(tiny_tokenizer, lambda rows: ScriptedSession([b"ab"] * rows, [b"xy"] * rows))
    refused, good = submitted(engine, [Request(list(b"ab"), 2, sampling=bad), asked(b"ab", 2)])
    assert text(list(good)) == "xy"
    with pytest.raises(InvalidRequestError):
        list(refused)
