"""Idle sessions: which one a prompt leases, how many are kept, and how they are closed."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from out_of_threads import out_of_threads
from scripted_session import ScriptedSession

from langchain_petals.engine.sessions.session_pool import SessionPool
from langchain_petals.engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def idle(ids: Sequence[int], max_length: int = 100) -> ScriptedSession:
    return ScriptedSession([[]], [[]], held=ids, max_length=max_length)


def rolling(ids: Sequence[int], max_length: int = 100) -> ScriptedSession:
    return ScriptedSession([[]], [[]], held=ids, max_length=max_length, can_roll_back=True)


@pytest.fixture
def pool() -> Iterator[SessionPool]:
    pool = SessionPool()
    yield pool
    pool.close()


# ---- leases


def test_prompt_that_continues_a_session_leases_it(pool: SessionPool) -> None:
    session = idle(b"abc")
    pool.park(session, Settings())
    assert pool.lease(b"abcd", 10) is session
    assert session.resumed == [(3, 10)]


def test_lease_is_exclusive(pool: SessionPool) -> None:
    pool.park(idle(b"abc"), Settings())
    assert pool.lease(b"abcd", 10) is not None
    assert pool.lease(b"abcd", 10) is None


def test_threads_that_want_the_same_session_do_not_share_it(pool: SessionPool) -> None:
    sessions = [idle(b"abc") for _ in range(4)]
    for session in sessions:
        pool.park(session, Settings())
    leased: list[object] = []
    together = threading.Barrier(8)

    def lease() -> None:
        together.wait(10)
        leased.append(pool.lease(b"abcd", 10))

    threads = [threading.Thread(target=lease) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    got = [each for each in leased if each is not None]
    assert len(leased) == 8
    assert {id(each) for each in got} == {id(each) for each in sessions}
    assert len(got) == 4


@pytest.mark.parametrize(
    ("held", "prompt"),
    [
        pytest.param(b"abc", b"abc", id="nothing to feed: a session gives logits for new tokens only"),
        pytest.param(b"abc", b"ab", id="session is longer"),
        pytest.param(b"abc", b"abx", id="other last token"),
        pytest.param(b"abc", b"xbcd", id="other first token"),
        pytest.param(b"abc", b"", id="no prompt"),
        pytest.param(b"", b"abc", id="nothing held"),
    ],
)
def test_prompts_that_do_not_continue_a_session_do_not_lease_it(pool: SessionPool, held: bytes, prompt: bytes) -> None:
    session = idle(held)
    pool.park(session, Settings())
    assert pool.lease(prompt, 10) is None
    assert len(pool) == 1
    assert not session.resumed
    assert not session.closed.is_set()


@pytest.mark.parametrize(
    ("held", "prompt", "position"),
    [
        pytest.param(b"abcd", b"abcd", 3, id="the last token is fed again"),
        pytest.param(b"abcd", b"abxy", 2, id="half of it is shared"),
        pytest.param(b"abcd", b"ab", None, id="less than half is left after the last token"),
        pytest.param(b"abcd", b"axyz", None, id="less than half is shared: it is another conversation's"),
        pytest.param(b"abcd", b"abcdef", 4, id="all of it is shared"),
    ],
)
def test_session_that_can_roll_back_needs_only_a_shared_beginning(
    pool: SessionPool, held: bytes, prompt: bytes, position: int | None
) -> None:
    session = rolling(held)
    pool.park(session, Settings())
    leased = pool.lease(prompt, 10)
    assert (leased is session) == (position is not None)
    assert session.resumed == ([] if position is None else [(position, 10)])


def test_session_that_saves_most_tokens_is_leased(pool: SessionPool) -> None:
    sessions = [idle(b"ab"), idle(b"abcd"), idle(b"abc"), rolling(b"abcdxyz")]
    for session in sessions:
        pool.park(session, Settings())
    assert [pool.lease(b"abcdef", 10) for _ in range(4)] == [sessions[1], sessions[3], sessions[2], sessions[0]]


@given(
    held=st.lists(st.text("ab", max_size=6).map(str.encode), max_size=6),
    prompt=st.text("ab", max_size=8).map(str.encode),
)
def test_leased_session_is_always_a_beginning_of_the_prompt(held: list[bytes], prompt: bytes) -> None:
    pool = SessionPool()
    for ids in held:
        pool.park(idle(ids), Settings(session_cache=10))
    session = pool.lease(prompt, 10)
    fitting = [len(ids) for ids in held if ids and prompt.startswith(ids) and len(ids) < len(prompt)]
    assert (0 if session is None else len(session.ids)) == max(fitting, default=0)
    pool.close()


def test_outgrown_session_is_closed_and_not_leased(pool: SessionPool) -> None:
    session = idle(b"abc", max_length=10)
    pool.park(session, Settings())
    assert pool.lease(b"abcd", 11) is None
    assert session.closed.wait(10)
    assert len(pool) == 0


def test_session_with_just_enough_room_is_leased(pool: SessionPool) -> None:
    session = idle(b"abc", max_length=10)
    pool.park(session, Settings())
    assert pool.lease(b"abcd", 10) is session


# ---- limits


def test_least_recently_used_session_is_closed_first(pool: SessionPool) -> None:
    settings = Settings(session_cache=2)
    first, second, third = idle(b"a"), idle(b"b"), idle(b"c")
    pool.park(first, settings)
    pool.park(second, settings)
    used = pool.lease(b"ax", 10)
    assert used is first
    pool.park(used, settings)
    pool.park(third, settings)
    assert second.closed.wait(10)
    assert len(pool) == 2
    assert not first.closed.is_set()
    assert not third.closed.is_set()


def test_idle_sessions_reserve_no_more_than_the_limit(pool: SessionPool) -> None:
    settings = Settings(session_cache=10, session_cache_tokens=100)
    sessions = [idle(b"a", 40), idle(b"b", 40), idle(b"c", 20), idle(b"d", 50)]
    for session in sessions[:3]:
        pool.park(session, settings)
    assert pool.reserved_tokens == 100
    pool.park(sessions[3], settings)
    assert sessions[0].closed.wait(10)
    assert sessions[1].closed.wait(10)
    assert pool.reserved_tokens == 70


def test_session_over_the_limit_is_closed_and_the_others_stay(pool: SessionPool) -> None:
    settings = Settings(session_cache_tokens=100)
    small, large = idle(b"a", 60), idle(b"b", 101)
    pool.park(small, settings)
    pool.park(large, settings)
    assert large.closed.wait(10)
    assert not small.closed.is_set()
    assert len(pool) == 1


# ---- closing


def test_session_that_was_idle_too_long_is_closed(pool: SessionPool) -> None:
    brief, lasting = idle(b"a"), idle(b"b")
    pool.park(lasting, Settings())
    pool.park(brief, Settings(session_idle_timeout=0.01))
    assert brief.closed.wait(10)
    assert not lasting.closed.is_set()
    assert pool.lease(b"bx", 10) is lasting


def test_close_closes_idle_sessions_and_waits_for_those_being_closed(pool: SessionPool) -> None:
    sessions = [idle(bytes([n])) for n in range(6)]
    for session in sessions:
        pool.park(session, Settings(session_cache=2))
    pool.close()
    assert all(session.closed.is_set() for session in sessions)
    assert len(pool) == 0


def test_session_that_is_parked_after_close_is_closed(pool: SessionPool) -> None:
    pool.park(idle(b"abc"), Settings())
    leased: Any = pool.lease(b"abcd", 10)
    pool.close()
    assert leased is not None
    pool.park(leased, Settings())
    assert leased.closed.wait(10)
    assert len(pool) == 0
    assert pool.lease(b"abcd", 10) is None


def test_pool_works_after_clear(pool: SessionPool) -> None:
    first, second = idle(b"abc"), idle(b"abc")
    pool.park(first, Settings())
    pool.clear()
    assert first.closed.is_set()
    pool.park(second, Settings())
    assert pool.lease(b"abcd", 10) is second


def test_sessions_are_closed_by_the_caller_if_no_thread_can_be_started(pool: SessionPool) -> None:
    with out_of_threads(but=1):  # the timer of the first one
        first, second, large = idle(b"a"), idle(b"b"), idle(b"c", 101)
        settings = Settings(session_cache_tokens=100)
        pool.park(first, settings)
        pool.park(large, settings)
        assert large.closed.is_set()
        assert not first.closed.is_set()
        pool.park(second, settings)
    assert first.closed.is_set()
    assert second.closed.is_set(), "nobody would close it in time"
    assert len(pool) == 0


def test_session_that_cannot_resume_is_closed(pool: SessionPool) -> None:
    class Broken(ScriptedSession):
        def resume(self, position: int, needed: int) -> None:
            super().resume(position, needed)
            msg = "gone"
            raise ConnectionError(msg)

    session = Broken([[]], [[]], held=b"abc")
    pool.park(session, Settings())
    with pytest.raises(ConnectionError, match="gone"):
        pool.lease(b"abcd", 10)
    assert session.closed.is_set()


def test_session_that_cannot_be_closed_does_not_keep_others_open(pool: SessionPool) -> None:
    class Broken(ScriptedSession):
        def close(self) -> None:
            super().close()
            msg = "gone"
            raise ConnectionError(msg)

    sessions = [idle(b"a"), Broken([[]], [[]], held=b"b"), idle(b"c")]
    for session in sessions:
        pool.park(session, Settings())
    with pytest.raises(ConnectionError, match="gone"):
        pool.clear()
    assert all(session.closed.is_set() for session in sessions)


def test_close_waits_for_sessions_that_the_timer_closes(pool: SessionPool) -> None:
    """The slow session ends only when `close` closes the other one."""
    begun, let_go = threading.Event(), threading.Event()

    class Slow(ScriptedSession):
        def close(self) -> None:
            begun.set()
            let_go.wait()
            super().close()

    class LettingGo(ScriptedSession):
        def close(self) -> None:
            let_go.set()
            super().close()

    slow, last = Slow([[]], [[]], held=b"a"), LettingGo([[]], [[]], held=b"b")
    pool.park(last, Settings())
    pool.park(slow, Settings(session_idle_timeout=0))
    assert begun.wait(30)
    pool.close()
    assert slow.closed.is_set()
    assert last.closed.is_set()


def test_idle_sessions_are_closed_when_the_program_ends() -> None:
    program = """
from langchain_petals.engine.sessions.session_pool import SessionPool
from langchain_petals.engine.settings import Settings

class Session:
    ids, max_length, reserved, can_roll_back = [1, 2], 10, 10, False

    def close(self):
        print("closed", flush=True)

pool = SessionPool()
pool.park(Session(), Settings())
print("end of the program", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.split("\n") == ["end of the program", "closed", ""]
    assert not ended.stderr


def test_sessions_of_batches_are_closed_before_those_of_conversations(pool: SessionPool) -> None:
    settings = Settings(session_cache=3)
    conversations = [idle(b"abc"), idle(b"def")]
    batch = [idle(bytes([number])) for number in range(5)]
    pool.park(conversations[0], settings)
    for session in batch[:3]:
        pool.park(session, settings, of_batch=True)
    pool.park(conversations[1], settings)
    for session in batch[3:]:
        pool.park(session, settings, of_batch=True)
    assert len(pool) == 3
    assert pool.lease(b"abcd", 10) is conversations[0]
    assert pool.lease(b"defg", 10) is conversations[1]
    assert pool.lease(bytes([4, 1]), 10) is batch[4]


def test_session_of_a_batch_that_is_continued_is_one_of_a_conversation(pool: SessionPool) -> None:
    settings = Settings(session_cache=1)
    session = idle(b"abc")
    pool.park(session, settings, of_batch=True)
    assert pool.lease(b"abcd", 10) is session
    pool.park(session, settings)
    pool.park(idle(b"xyz"), settings, of_batch=True)
    assert pool.lease(b"abcd", 10) is session
