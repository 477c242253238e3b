"""Idle sessions, kept by their tokens for the prompt that goes on where one of them ended."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.session import ReusableSession
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

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
        best.session.resume(saved, needed)
        return best.session

    def park(self, session: ReusableSession, settings: Settings) -> None:
        """Keep a session, closing the ones that have not been used for longest where there are too many.

        A session that alone reserves more than there may be is closed, and costs none of the others its place.
        """
        with self._lock:
            if session.reserved > settings.session_cache_tokens:
                self._close_soon([session])
                return
            self._idle.append(_Idle(session, time.monotonic() + settings.session_idle_timeout))
            closing = []
            while len(self._idle) > settings.session_cache or self.reserved_tokens > settings.session_cache_tokens:
                closing.append(self._idle.pop(0))
            self._set_timer()
            self._close_soon([idle.session for idle in closing])

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._idle:
            wait = min(idle.expires for idle in self._idle) - time.monotonic()
            self._timer = threading.Timer(max(0.0, wait), self._close_expired)
            self._timer.daemon = True
            self._timer.start()

    def _close_expired(self) -> None:
        now = time.monotonic()
        with self._lock:
            closing = [idle for idle in self._idle if idle.expires <= now]
            self._idle = [idle for idle in self._idle if idle.expires > now]
            self._set_timer()
            self._close_soon([idle.session for idle in closing])
        if closing:
            logger.debug("Closing %d session(s) that were idle for too long", len(closing))

    def _close_soon(self, sessions: Sequence[ReusableSession]) -> None:
        """Close sessions on another thread: it is a round trip, for which no caller and no event loop should wait.

        Whoever takes them out holds the lock until they are here: `close` finds them in one place or the other.
        """
        if not sessions:
            return
        thread = threading.Thread(target=_close_all, args=[sessions], name="langchain-petals-closing", daemon=True)
        thread.start()
        self._closing = [each for each in self._closing if each.is_alive()] + [thread]

    def close(self) -> None:
        """Close all idle sessions; returns when they, and those that were to be closed anyway, are."""
        with self._lock:
            closing, self._idle = self._idle, []
            under_way = list(self._closing)
            self._set_timer()
        _close_all([idle.session for idle in closing])
        for thread in under_way:
            thread.join()


def _close_all(sessions: Sequence[ReusableSession]) -> None:
    for session in sessions:
        session.close()


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
