"""Idle sessions, kept for prompts that continue them."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING

from langchain_petals.engine.threads import NO_THREAD, call_in_child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.sessions.session import Session
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

# for `_close_pools`; a pool leaves the set when its engine ends
_pools: weakref.WeakSet[SessionPool] = weakref.WeakSet()


class SessionPool:
    """The idle sessions of one engine.

    A session is leased to one request at a time, since a request changes it. Each `park` brings its limits: objects
    that share an engine may have different limits, and the latest apply.
    """

    def __init__(self) -> None:
        # sessions and the times when they expire (monotonic clock); least recently used first, after those of batches
        self._idle: dict[Session, float] = {}
        self._of_batches: weakref.WeakSet[Session] = weakref.WeakSet()
        self._closing: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        _pools.add(self)
        call_in_child(self, SessionPool._begin_child)

    def _begin_child(self) -> None:
        """Forget the sessions, in the child of a fork: they are the parent's."""
        self._idle, self._closing, self._timer, self._lock = {}, [], None, threading.Lock()

    def __len__(self) -> int:
        """Return the number of idle sessions."""
        return len(self._idle)

    @property
    def reserved_tokens(self) -> int:
        """Tokens that the idle sessions together reserve on each server."""
        return sum(session.reserved for session in list(self._idle))

    def lease(self, prompt_ids: Sequence[int], needed: int) -> Session | None:
        """Take out the session that shares the most tokens with a prompt, cut to these tokens; None if none fits.

        A session fits if the prompt begins with all of its tokens and is longer. If it can be rolled back, it also fits
        if at least half of its tokens begin the prompt. With less, it is probably the session of another conversation
        with the same system message, and is left to that. `needed` is the most tokens that the session will hold.
        """
        with self._lock:
            best = max(self._idle, key=lambda session: _usable(session, prompt_ids), default=None)
            saved = 0 if best is None else _usable(best, prompt_ids)
            if best is None or not saved:
                return None
            del self._idle[best]
            if best.max_length < needed:  # the conversation has outgrown it
                self._close_soon([best])
                return None
        try:
            best.resume(saved, needed)
        except BaseException:
            best.close()
            raise
        return best

    def park(self, session: Session, settings: Settings, *, of_batch: bool = False) -> None:
        """Keep a session; close the least recently used ones if there are too many.

        Those of batches are closed first: few of them are continued, and a batch must not close the sessions of
        conversations.

        A session that alone exceeds `session_cache_tokens` is closed, and the others stay. After `close`, each session
        is closed at once.
        """
        with self._lock:
            if self._closed or session.reserved > settings.session_cache_tokens:
                self._close_soon([session])
                return
            (self._of_batches.add if of_batch else self._of_batches.discard)(session)
            self._idle[session] = time.monotonic() + settings.session_idle_timeout
            self._idle = dict(sorted(self._idle.items(), key=lambda each: each[0] not in self._of_batches))
            closing = []
            while len(self._idle) > settings.session_cache or self.reserved_tokens > settings.session_cache_tokens:
                closing.append(next(iter(self._idle)))
                del self._idle[closing[-1]]
            self._let_go(closing)

    def _let_go(self, closing: list[Session]) -> None:
        """Close sessions that were taken out of the pool, and set the timer for the others."""
        try:
            self._set_timer()
        except NO_THREAD:  # without a timer, the others would not be closed in time
            closing, self._idle = [*closing, *self._idle], {}
        self._close_soon(closing)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle:
            wait = min(self._idle.values()) - time.monotonic()
            timer = threading.Timer(max(0.0, wait), self._close_expired)
            timer.daemon = True
            timer.start()
            self._timer = timer

    def _close_expired(self) -> None:
        now = time.monotonic()
        with self._lock:
            closing = [session for session, expires in self._idle.items() if expires <= now]
            self._idle = {session: expires for session, expires in self._idle.items() if expires > now}
            self._let_go(closing)
        if closing:
            logger.debug("Closing %d session(s) that were idle for too long", len(closing))

    def _close_soon(self, sessions: Sequence[Session]) -> None:
        """Close sessions on another thread, since no caller should wait for the round trip.

        The caller has held the lock since it took the sessions out, so `clear` finds each one idle or being closed. If
        no thread can be started, the sessions are closed here.
        """
        if not sessions:
            return
        thread = threading.Thread(target=_close_all, args=[sessions], name="langchain-petals-closing", daemon=True)
        try:
            thread.start()
        except NO_THREAD:
            _close_all(sessions)
            return
        self._closing = [each for each in self._closing if each.is_alive()] + [thread]

    def close(self) -> None:
        """Close all idle sessions, and from now on each session that is parked."""
        with self._lock:
            self._closed = True
        self.clear()

    def clear(self) -> None:
        """Close all idle sessions; return when these and all that are being closed are closed."""
        with self._lock:
            closing, self._idle = list(self._idle), {}
            closing_threads = list(self._closing)
            self._set_timer()
        try:
            _close_all(closing)
        finally:
            for thread in closing_threads:
                thread.join()


def _close_all(sessions: Sequence[Session]) -> None:
    with contextlib.ExitStack() as stack:  # if one raises, the others are closed all the same
        for session in reversed(sessions):
            stack.callback(session.close)


def _usable(session: Session, prompt_ids: Sequence[int]) -> int:
    """Return how many tokens of the prompt the session saves; the last one is always fed, to get logits."""
    ids = session.ids
    most = min(len(ids), len(prompt_ids) - 1)
    shared = next((i for i in range(most) if ids[i] != prompt_ids[i]), most)
    if shared == len(ids):
        return shared
    return shared if session.can_roll_back and 2 * shared >= len(ids) else 0


@atexit.register
def _close_pools() -> None:
    """When the program ends, close all idle sessions, so that the servers free their caches."""
    for pool in list(_pools):
        pool.close()
