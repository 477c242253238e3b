"""`Engine.submit`: idle sessions, groups of requests, and errors that concern one request only."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from local_engine import LocalEngine, Outcome, outcome
from out_of_threads import out_of_threads
from scripted_session import ScriptedEngine, ScriptedSession

from langchain_petals.engine.constraints.guide import Grammars
from langchain_petals.engine.generation import Generation
from langchain_petals.engine.request import Request, Sampling
from langchain_petals.engine.settings import Settings
from langchain_petals.engine.step_costs import Costs, StepCosts
from langchain_petals.grammars import Constraint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

KEEPING, ALONE = Settings(), Settings(session_cache=0)
GREEDY = Sampling(greedy=True)


@pytest.fixture
def engine(babbler: LlamaForCausalLM, endless_tokenizer: PreTrainedTokenizerFast) -> LocalEngine:
    return LocalEngine(babbler, endless_tokenizer)


def asked(prompt: Sequence[int], new: int = 6, **more: Any) -> Request:
    return Request(list(prompt), new, GREEDY, **more)


def grown(prompt: Sequence[int], answer: Outcome) -> list[int]:
    """Return the next turn's prompt: the conversation so far and one more question."""
    return [*prompt, *answer.tokens, 7, 8]


def test_conversation_continues_in_its_session(engine: LocalEngine) -> None:
    prompt = [5, 11, 42]
    alone, together = [], []
    for _ in range(5):
        [generation] = engine.submit([asked(prompt)], KEEPING)
        together.append(outcome(generation))
        alone += engine.run(asked(prompt))
        assert generation.reused_tokens == (len(prompt) - 3 if len(together) > 1 else 0)
        prompt = grown(prompt, together[-1])
    assert [each.tokens for each in together] == [each.tokens for each in alone]
    assert engine.rows == [1] * 6
    assert len(engine.pool) == 1


def test_session_cache_of_0_keeps_no_session(engine: LocalEngine) -> None:
    engine.run(asked([5, 11, 42]))
    assert len(engine.pool) == 0


def test_only_one_of_two_prompts_that_continue_a_session_gets_it(engine: LocalEngine) -> None:
    prompt = [5, 11, 42]
    [first] = engine.run(asked(prompt), settings=KEEPING)
    branches = [grown(prompt, first), [*grown(prompt, first), 9]]
    generations = engine.submit([asked(each) for each in branches], KEEPING)
    outcomes = [outcome(each) for each in generations]
    assert sorted(each.reused_tokens > 0 for each in generations) == [False, True]
    assert [each.tokens for each in outcomes] == [each.tokens for each in engine.run_alone(map(asked, branches))]


def test_interleaved_conversations_use_separate_sessions(engine: LocalEngine) -> None:
    settings = Settings(max_batch_size=1)  # conversations that begin together would share a session, which is not kept
    prompts = [[5, 11, 42], [6, 12], [7]]
    for turn in range(3):
        generations = [engine.submit([asked(prompt)], settings)[0] for prompt in prompts]
        outcomes = [outcome(each) for each in generations]
        # a turn adds the token that ended the one before, which was never sent, and the two of `grown`
        assert [each.reused_tokens for each in generations] == [len(prompt) - 3 if turn else 0 for prompt in prompts]
        assert [each.tokens for each in outcomes] == [each.tokens for each in engine.run_alone(map(asked, prompts))]
        prompts = [grown(prompt, each) for prompt, each in zip(prompts, outcomes, strict=True)]


def test_stopped_answers_can_be_continued_in_their_sessions(engine: LocalEngine) -> None:
    prompt = [5, 11, 42]
    [whole] = engine.run(asked(prompt))
    [stopped] = engine.run(asked(prompt, stop=[whole.text[2]]), settings=KEEPING)
    prompt = [*prompt, *stopped.tokens, 7, 8]
    [generation] = engine.submit([asked(prompt)], KEEPING)
    assert outcome(generation).tokens == engine.run(asked(prompt))[0].tokens
    assert generation.reused_tokens == len(prompt) - 3


def test_leased_session_that_fails_is_closed_and_not_kept(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine(tiny_tokenizer, lambda _: pytest.fail("opened a session"))
    session = ScriptedSession([b"abc"], [b"xyz"], held=b"ab", failures={1: ConnectionError("gone")})
    engine.pool.park(session, KEEPING)
    [generation] = engine.submit([asked(b"abc", 3)], KEEPING)
    with pytest.raises(ConnectionError, match="gone"):
        list(generation)
    assert session.closed.wait(10)
    assert len(engine.pool) == 0


def test_request_that_cannot_run_closes_its_session(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine(tiny_tokenizer, lambda _: pytest.fail("opened a session"))
    session = ScriptedSession([b"abc"], [b"xyz"], held=b"ab")
    engine.pool.park(session, KEEPING)
    bad = Request(list(b"abc"), 3, Sampling(bad_words_ids=((-1,),)))
    [generation] = engine.submit([bad], KEEPING)
    with pytest.raises(ValueError, match="cannot be used"):
        list(generation)
    assert session.closed.wait(10)


def test_session_stays_idle_if_its_request_gets_no_thread(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine(tiny_tokenizer, lambda _: pytest.fail("opened a session"))
    session = ScriptedSession([b"abc"], [b"xyz"], held=b"ab")
    engine.pool.park(session, KEEPING)
    with out_of_threads(named="langchain-petals-decoding"):  # but for the pool's timer
        [lost] = engine.submit([asked(b"abc", 3)], KEEPING)
    with pytest.raises(RuntimeError, match="new thread"):
        list(lost)
    assert len(engine.pool) == 1
    [generation] = engine.submit([asked(b"abc", 3)], KEEPING)
    assert outcome(generation).text == "xyz"
    assert generation.reused_tokens == 2


def test_session_is_closed_if_neither_request_nor_timer_gets_a_thread(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    engine = ScriptedEngine(tiny_tokenizer, lambda _: pytest.fail("opened a session"))
    session = ScriptedSession([b"abc"], [b"xyz"], held=b"ab")
    engine.pool.park(session, KEEPING)
    with out_of_threads():
        [lost] = engine.submit([asked(b"abc", 3)], KEEPING)
    with pytest.raises(RuntimeError, match="new thread"):
        list(lost)
    assert session.closed.is_set()
    assert len(engine.pool) == 0


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}], ids=["in a group", "beam search"])
def test_requests_without_a_thread_fail_and_the_next_are_served(engine: LocalEngine, more: dict[str, Any]) -> None:
    with out_of_threads():
        generations = engine.submit([asked([5, 11], **more), asked([6, 12], **more)], ALONE)
    for each in generations:
        with pytest.raises(RuntimeError, match="new thread"):
            list(each)
    assert len(engine.run(asked([5, 11], **more))[0].tokens) == 6


def test_request_without_a_thread_does_not_disturb_a_running_one(engine: LocalEngine) -> None:
    [alone] = engine.run(asked([5, 11], num_beams=2))
    with out_of_threads(but=1):
        searching, lost = engine.submit([asked([5, 11], num_beams=2), asked([6, 12])], ALONE)
    assert outcome(searching).tokens == alone.tokens
    with pytest.raises(RuntimeError, match="new thread"):
        list(lost)


def test_session_that_finds_no_room_waits_for_one_that_ends_and_is_not_kept(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    found: list[bool] = []
    first, second = ScriptedSession([b"abc"], [b"xyz"]), ScriptedSession([b"def"], [b"uvw"])
    scripted = ScriptedEngine(tiny_tokenizer, lambda _: first)
    make_room = scripted._room_maker()
    scripted._at_work.add(second)
    waiting = threading.Thread(target=lambda: found.append(make_room()))

    def wait_for_the_other(step: int) -> None:
        if step == 1:
            waiting.start()
            with scripted._work_changed:
                assert scripted._work_changed.wait_for(lambda: scripted._waiting == 1, 10)

    first._before_step = wait_for_the_other
    [generation] = scripted.submit([asked(b"abc", 3)], KEEPING)
    assert outcome(generation).text == "xyz"
    waiting.join(10)
    assert found == [True]
    assert first.closed.is_set()
    assert len(scripted.pool) == 0
    assert not make_room()  # no other session is at work


def test_base_exception_reaches_the_caller(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries written in Rust raise a subclass of `BaseException` when they panic."""

    class Panic(BaseException):
        pass

    def panic(*_: object) -> None:
        raise Panic

    monkeypatch.setattr(Grammars, "guide", panic)
    bad, good = engine.submit([asked([5], constraint=Constraint("start: /a/")), asked([5])], ALONE)
    with pytest.raises(Panic):
        list(bad)
    assert len(outcome(good).tokens) == 6


def test_requests_of_threads_and_tasks_share_a_session(engine: LocalEngine) -> None:
    """The batch is full when the last of the requests has come, from a thread or a task."""
    settings = Settings(session_cache=0, batch_window=60_000, max_batch_size=4)
    prompts = [[5, 11, 42], [6, 12, 13], [7, 14, 15], [8, 9, 10]]
    found: dict[int, list[int]] = {}

    def on_thread(index: int) -> None:
        found[index] = engine.run(asked(prompts[index]), settings=settings)[0].tokens

    async def as_task(index: int) -> None:
        [generation] = engine.submit([asked(prompts[index])], settings)
        found[index] = [token async for piece in generation for token in piece.tokens]

    async def tasks() -> None:
        await asyncio.gather(as_task(2), as_task(3))

    threads = [threading.Thread(target=on_thread, args=[index]) for index in range(2)]
    for thread in threads:
        thread.start()
    asyncio.run(tasks())
    for thread in threads:
        thread.join(10)
    assert engine.rows == [4]
    assert [found[index] for index in range(4)] == [each.tokens for each in engine.run_alone(map(asked, prompts))]


def learned(engine: LocalEngine, latency: float) -> None:
    """Let the engine believe that steps take so long on the way, and a millisecond of work."""
    costs = Costs(latency, fixed=0.001, row=0.0001, token=0.00001, several=0.0)
    engine.client.step_costs = KnownCosts(costs)  # type: ignore[misc]


class KnownCosts(StepCosts):
    """Costs of steps that measurements do not change."""

    def __init__(self, known: Costs) -> None:
        super().__init__()
        self._known = known

    @property
    def costs(self) -> Costs:
        return self._known


@pytest.mark.parametrize(("latency", "sessions"), [(0.0, 1), (1.0, 4)], ids=["near", "far"])
def test_measured_steps_decide_who_shares_a_session(engine: LocalEngine, latency: float, sessions: int) -> None:
    requests = [asked([5] * length) for length in (3, 5, 7, 9)]
    alone = engine.run_alone(requests)
    engine.rows.clear()
    learned(engine, latency)
    assert [each.tokens for each in engine.run(*requests)] == [each.tokens for each in alone]
    assert len(engine.rows) == sessions
    assert sum(engine.rows) == len(requests)


def test_rows_under_grammars_share_no_session_with_rows_that_need_each_step(engine: LocalEngine) -> None:
    learned(engine, 1.0)
    free = [asked([5] * 4, 4) for _ in range(3)]
    constrained = [asked([5] * 4, 60, constraint=Constraint("start: /[ab]{50}/")) for _ in range(3)]
    shapes = engine._divide([Generation(each) for each in [*free[:2], *constrained, free[2]]], ALONE)
    assert shapes is not None
    assert all(len({each.request.constraint for each in group}) == 1 for group in shapes)


def test_batch_of_sessions_does_not_close_those_of_conversations(engine: LocalEngine) -> None:
    prompt = [5, 11, 42]
    [answer] = engine.run(asked(prompt), settings=KEEPING)
    learned(engine, 1.0)
    engine.run(*(asked([9] * length) for length in range(3, 15)), settings=KEEPING)
    assert engine.rows == [1] * 13
    [generation] = engine.submit([asked(grown(prompt, answer))], KEEPING)
    outcome(generation)
    assert generation.reused_tokens > 0


def test_fixed_rule_decides_until_a_step_was_measured(engine: LocalEngine) -> None:
    generations = [Generation(asked([5])), Generation(asked([5] * 300))]
    assert engine._divide(generations, ALONE) is None
    learned(engine, 1.0)
    assert engine._divide(generations, ALONE) == [[each] for each in generations]


def test_program_may_end_during_an_answer(tiny_model: LlamaForCausalLM) -> None:
    """A thread that is inside torch when the interpreter ends would abort the process."""
    program = f"""
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from langchain_petals import Petals

folder = {tiny_model.name_or_path!r}
model, tokenizer = LlamaForCausalLM.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
llm = Petals(client=model, tokenizer=tokenizer, max_new_tokens=500, model_kwargs={{"min_new_tokens": 500}})
stream = llm.stream("Hello")
next(stream)
print("end of the program", flush=True)
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "end of the program\n"), ended.stderr
