"""`Engine.submit`: all calls of LangChain's interfaces reach the swarm through it."""

from __future__ import annotations

import os
import threading
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from langchain_petals.engine.constraints import Grammars
from langchain_petals.engine.decoding import Beams, Preferences, Row, decode
from langchain_petals.engine.expectations import Expectations
from langchain_petals.engine.generation import Generation, failing
from langchain_petals.engine.grouping import divide
from langchain_petals.engine.network import CacheLimitError
from langchain_petals.engine.scheduler import Scheduler
from langchain_petals.engine.sessions import SessionPool
from langchain_petals.engine.threads import program_ends, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from langchain_petals.engine.loading import Client
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.sessions import Session
    from langchain_petals.engine.settings import Settings

_LONGEST_SLEEP = 1.0  # seconds until a session that waits for room looks whether the program ends


class Engine:
    """Runs requests on one model.

    A request whose prompt continues an idle session runs in that session. The others run in groups, each group in a new
    session and on its own thread.

    Args:
        client: The model, its tokenizer and its sessions. The engine owns it: no other engine may use it, and
            `shut_down` shuts it down.

    Attributes:
        client: The same. Callers may read its properties, but not open sessions.
        pool: Idle sessions.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._grammars = Grammars(client.tokenizer)
        self._scheduler = Scheduler(self._run, self._divide)
        self._expectations = Expectations()
        self.pool = SessionPool()
        self._at_work: set[Session] = set()
        self._ended, self._waiting = 0, 0  # sessions that have held room and ended; sessions that wait for room
        self._work_changed = threading.Condition()
        self._process = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether requests can be submitted: its swarm was not left, and it is not that of a parent process."""
        return self._process == os.getpid() and self.client.is_open

    def shut_down(self) -> None:
        """Close the idle sessions and leave the swarm."""
        self.pool.close()
        self.client.shut_down()

    def expecting(self) -> AbstractContextManager[None]:
        """Return a context manager; inside it, waiting requests also wait for one that is being prepared."""
        return self._scheduler.expecting()

    def submit(self, requests: Sequence[Request], settings: Settings) -> list[Generation]:
        """Start requests; return a handle for each of them, in the same order.

        Args:
            requests: What to generate.
            settings: Batching, sessions, time limits and retries.
        """
        generations = [Generation(request) for request in requests]
        waiting = []
        for generation in generations:
            with failing([generation]):
                if generation.request.num_beams > 1:
                    start_thread(self._search, generation, settings)
                elif not self._start_in_idle_session(generation, settings):
                    waiting.append(generation)
        if waiting:
            with failing(waiting):
                self._scheduler.put(waiting, settings)
        return generations

    def _start_in_idle_session(self, generation: Generation, settings: Settings) -> bool:
        """Start a request in an idle session that its prompt continues; return False if there is none."""
        request = generation.request
        if not settings.session_cache:
            return False
        session = self.pool.lease(request.prompt_ids, len(request.prompt_ids) + request.max_new_tokens)
        if session is None:
            return False
        try:
            start_thread(self._run, [generation], settings, session)
        except Exception:  # no thread could be started; the session is unchanged, and the next request may use it
            self.pool.park(session, settings)
            raise
        return True

    def _divide(self, generations: list[Generation], settings: Settings) -> list[list[Generation]] | None:
        """Divide requests of equal settings into groups that are done soonest; None before a step was measured."""
        if len(generations) == 1:
            return [generations]
        for generation in generations:
            generation.of_batch = True
        costs = self.client.step_costs.costs
        if costs is None:
            return None
        # grammars have neighbours with grammars, since rows that need a step for each token would hold them up
        ordered = sorted(
            generations, key=lambda each: (each.request.constraint is not None, len(each.request.prompt_ids))
        )
        sizes = divide(
            [self._expectations.of(each.request, settings) for each in ordered],
            costs,
            most_rows=settings.max_batch_size,
            chunk_tokens=settings.prefill_chunk_tokens,
            room=self.client.room + self.pool.reserved_tokens,
            reserved=partial(self.client.reservation, settings),
        )
        rest = iter(ordered)
        return [list(islice(rest, size)) for size in sizes]

    def _search(self, generation: Generation, settings: Settings) -> None:
        with failing([generation]):
            preferences = Preferences.of(self.client.generation_config)
            beams = Beams(generation, self.client.tokenizer, self.client.end_tokens, preferences)
            while not beams.done:
                session = self.client.open_session(beams.number, beams.longest, settings, self._room_maker())
                self._at_work.add(session)
                try:
                    beams.search(session, settings.prefill_chunk_tokens)
                except CacheLimitError as error:
                    beams.shorten(error.limit)
                finally:
                    session.close()
                    self._end_work(session)

    def _room_maker(self) -> Callable[[], bool]:
        """Return a function that makes room for one session where servers are full; see `Client.open_session`.

        It waits here, and not at the servers: many sessions that wait there at the same time keep petals' servers from
        freeing the cache of those that end.
        """
        ended = self._ended

        def make_room() -> bool:
            nonlocal ended
            if len(self.pool):
                self.pool.clear()
                return True
            self.pool.clear()  # waits for those that are being closed
            with self._work_changed:
                self._waiting += 1
                self._work_changed.notify_all()
                while self._ended == ended and self._waiting < len(self._at_work) and not program_ends():
                    self._work_changed.wait(_LONGEST_SLEEP)
                self._waiting -= 1
                before, ended = ended, self._ended
            return ended > before

        return make_room

    def _end_work(self, session: Session) -> None:
        with self._work_changed:
            self._at_work.discard(session)
            self._ended += session.position > 0
            self._work_changed.notify_all()

    def _keep(self, session: Session, settings: Settings, *, of_batch: bool = False) -> None:
        """Keep an idle session, unless another one waits for its room."""
        if self._waiting:
            session.close()
        else:
            self.pool.park(session, settings, of_batch=of_batch)

    def _run(self, generations: Sequence[Generation], settings: Settings, session: Session | None = None) -> None:
        """Run a group in one session; an error is raised to the callers that await the results."""
        rows: list[Row] = []
        for generation in generations:
            with failing([generation]):  # a request that cannot run; the others go on
                rows.append(self._row(generation, settings))
        try:
            if session is not None and not rows:
                session.close()
            while rows:
                try:
                    self._decode(rows, settings, session)
                except CacheLimitError as error:
                    for row in rows:
                        row.shorten(error.limit)
                session, rows = None, [row for row in rows if not row.done]
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            for row in rows:
                row.fail(error)

    def _row(self, generation: Generation, settings: Settings) -> Row:
        constraint, end_tokens = generation.request.constraint, self.client.end_tokens
        guide = None
        if constraint is not None:
            guide = self._grammars.guide(constraint, (*end_tokens, *generation.request.end_tokens))
        return Row(
            generation,
            self.client.tokenizer,
            end_tokens,
            guide,
            vocabulary=self.client.vocabulary_size,
            runs_ahead=settings.runs_ahead,
        )

    def _decode(self, rows: Sequence[Row], settings: Settings, idle: Session | None) -> None:
        for row in rows:
            row.run_ahead()
        complete, rows = [row for row in rows if row.done], [row for row in rows if not row.done]
        if not rows and idle is not None:
            self.pool.park(idle, settings)
        for row in complete:  # without a step
            row.deliver()
        if not rows:
            return
        needed = max(row.longest for row in rows)
        session = idle or self.client.open_session(len(rows), needed, settings, self._room_maker())
        self._at_work.add(session)
        parked, leased = False, idle is not None

        def park() -> None:
            nonlocal parked
            if not parked and len(rows) == 1 and settings.session_cache and session.position:
                parked = True
                self._keep(session, settings, of_batch=rows[0].generation.of_batch and not leased)

        try:
            decode(session, rows, settings.prefill_chunk_tokens, park, speculation=settings.speculation)
            for row in rows:
                answer = len(row.ids) - row.prompt_length
                self._expectations.note(row.generation, answer, settings, alone=len(rows) == 1)
            park()  # `decode` has not parked it if the last row was cancelled between two steps
        finally:
            if not parked:
                session.close()
            self._end_work(session)
