"""Idle sessions, kept by their tokens for the prompt that goes on where one of them ended."""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.sessions.session import ReusableSession
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

# what starting a thread raises where the system has no more of them, or no memory
_NO_THREAD = (RuntimeError, MemoryError)

_pools: weakref.WeakSet[SessionPool] = weakref.WeakSet()


@dataclass
class _Idle:
    session: ReusableSession
    expires: float  # on the monotonic clock


class SessionPool:
    """The idle sessions of one client.

    A session is leased to one request at a time: what continues it changes it. Limits come with each `park`, since
    objects that share a client may have different ones; the latest count.
    """

    def __init__(self) -> None:
        self._idle: list[_Idle] = []  # least recently used first
        self._closing: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        _pools.add(self)

    def __len__(self) -> int:
        """Return how many idle sessions there are."""
        return len(self._idle)

    @property
    def reserved_tokens(self) -> int:
        """Tokens that the idle sessions together reserve on each server."""
        return sum(idle.session.reserved for idle in self._idle)

    def lease(self, prompt_ids: Sequence[int], needed: int) -> ReusableSession | None:
        """Take out the session that saves the most tokens of a prompt.

        Without rolling back a session fits when the prompt begins with all of its tokens and goes on. With it a
        shared beginning is enough, if it is at least half of the session: else another conversation, which only has
        the system message in common, would lose its session to this one.

        Args:
            prompt_ids: The prompt.
            needed: Tokens that the session must have room for, the answer's included.

        Returns:
            A session whose tokens the prompt begins with, or None.
        """
        best, saved = None, 0
        with self._lock:
            for idle in self._idle:
                usable = _usable(idle.session, prompt_ids)
                if usable > saved:
                    best, saved = idle, usable
            if best is None:
                return None
            self._idle.remove(best)
            if best.session.max_length < needed:  # the conversation has outgrown it
                self._close_soon([best.session])
                return None
        try:
            best.session.resume(saved, needed)
        except BaseException:
            best.session.close()
            raise
        return best.session

    def park(self, session: ReusableSession, settings: Settings) -> None:
        """Keep a session, closing the ones that have not been used for longest where there are too many.

        A session that alone reserves more than there may be is closed, and costs none of the others its place. After
        `close` every session is closed.
        """
        with self._lock:
            if self._closed or session.reserved > settings.session_cache_tokens:
                self._close_soon([session])
                return
            self._idle.append(_Idle(session, time.monotonic() + settings.session_idle_timeout))
            closing = []
            while len(self._idle) > settings.session_cache or self.reserved_tokens > settings.session_cache_tokens:
                closing.append(self._idle.pop(0))
            self._let_go(closing)

    def _let_go(self, closing: list[_Idle]) -> None:
        """Close sessions that were taken out, and see to the end of those that stay."""
        try:
            self._set_timer()
        except _NO_THREAD:  # nobody would close the others in time
            closing, self._idle = closing + self._idle, []
        self._close_soon([idle.session for idle in closing])

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle:
            wait = min(idle.expires for idle in self._idle) - time.monotonic()
            timer = threading.Timer(max(0.0, wait), self._close_expired)
            timer.daemon = True
            timer.start()
            self._timer = timer

    def _close_expired(self) -> None:
        now = time.monotonic()
        with self._lock:
            closing = [idle for idle in self._idle if idle.expires <= now]
            self._idle = [idle for idle in self._idle if idle.expires > now]
            self._let_go(closing)
        if closing:
            logger.debug("Closing %d session(s) that were idle for too long", len(closing))

    def _close_soon(self, sessions: Sequence[ReusableSession]) -> None:
        """Close sessions on another thread: it is a round trip, for which no caller and no event loop should wait.

        Whoever takes them out holds the lock until they are here: `clear` finds them in one place or the other. Where
        no thread can be started the caller waits after all.
        """
        if not sessions:
            return
        thread = threading.Thread(target=_close_all, args=[sessions], name="langchain-petals-closing", daemon=True)
        try:
            thread.start()
        except _NO_THREAD:
            _close_all(sessions)
            return
        self._closing = [each for each in self._closing if each.is_alive()] + [thread]

    def close(self) -> None:
        """Close all idle sessions as `clear` does, and from now on each that would be kept."""
        with self._lock:
            self._closed = True
        self.clear()

    def clear(self) -> None:
        """Close all idle sessions; returns when they, and those that were to be closed anyway, are."""
        with self._lock:
            closing, self._idle = self._idle, []
            under_way = list(self._closing)
            self._set_timer()
        try:
            _close_all([idle.session for idle in closing])
        finally:
            for thread in under_way:
                thread.join()


def _close_all(sessions: Sequence[ReusableSession]) -> None:
    with contextlib.ExitStack() as stack:  # one that cannot be closed does not keep the others open
        for session in reversed(sessions):
            stack.callback(session.close)


def _usable(session: ReusableSession, prompt_ids: Sequence[int]) -> int:
    """Return how many tokens of the prompt the session saves; the last one is always fed, for its logits."""
    ids = session.ids
    most = min(len(ids), len(prompt_ids) - 1)
    shared = next((i for i in range(most) if ids[i] != prompt_ids[i]), most)
    if shared == len(ids):
        return shared
    return shared if session.can_roll_back and 2 * shared >= len(ids) else 0


@atexit.register
def _close_pools() -> None:
    """Let the servers have their caches back when the program ends."""
    for pool in list(_pools):
        pool.close()
