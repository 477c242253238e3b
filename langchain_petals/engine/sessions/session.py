"""Sessions: the token loop feeds them rows of tokens, and gets the logits for the next tokens."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import tenacity
import torch

from langchain_petals.engine.network import CLOSED, CacheLimitError, InvalidAnswerError, SpanChain, SpanError
from langchain_petals.engine.sessions.seen_tokens import SeenTokens
from langchain_petals.engine.step_costs import StepCosts
from langchain_petals.errors import BlocksMissingError, SpanFailedError, SwarmError, SwarmUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.engine.model_parts import ModelParts
    from langchain_petals.engine.network import Routes
    from langchain_petals.engine.settings import Settings

logger = logging.getLogger(__name__)

_MOST_LIMITED = 32  # servers whose word about their room is believed in one session
_MOST_MADE = 256  # times that room was made in vain, after which attempts count: strangers may take it each time
_LONGEST_REASON = 300  # characters of a server's failure in the log


class Session(ABC):
    """Rows of tokens that a model has seen, all of the same length.

    A session of one row may be kept idle, for a prompt that continues it.

    Args:
        max_length: Most tokens of a row for which it has room.
        step_costs: Measures its steps, with those of the client's other sessions; None for an own one.
    """

    def __init__(self, max_length: int, step_costs: StepCosts | None = None) -> None:
        self.max_length = max_length
        self.step_costs = StepCosts() if step_costs is None else step_costs
        self._seen = SeenTokens()

    @property
    def can_roll_back(self) -> bool:
        """Whether tokens can be forgotten that have been fed, or that the next step feeds."""
        return False

    @property
    def position(self) -> int:
        """Tokens of each row that the model has seen."""
        return len(self._seen)

    @property
    def ids(self) -> list[int]:
        """The tokens of the first row that the model has seen."""
        return self._seen.first_row

    @property
    def reserved(self) -> int:
        """Tokens of attention cache that it occupies on each server."""
        return self.max_length

    @abstractmethod
    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        """Feed more tokens.

        Args:
            ids: Token ids, shape (rows, new tokens).
            order: For each row the one that it continues, int64, shape (rows,), for a beam search; None if each row
                continues itself.
            last: For how many of the new tokens, counted from the end, to return logits; at least 1, at most all.

        Returns:
            Logits of the tokens that follow each of these, shape (rows, last, vocabulary).
        """

    def roll_back(self, position: int) -> None:
        """Forget the tokens from `position` on, so that the next step goes on there.

        Allowed if `can_roll_back` was true before the step that fed them, whatever has happened to servers since.

        Args:
            position: Tokens to keep; not more than `self.position`.
        """
        raise NotImplementedError

    @abstractmethod
    def resume(self, position: int, needed: int) -> None:
        """Prepare an idle session for a request: keep the tokens before `position`; rows will have `needed` tokens.

        `needed` is not more than `max_length`.
        """

    @abstractmethod
    def close(self) -> None:
        """Free the attention cache; may be called twice."""


class SwarmSession(Session):
    """A session on a chain of servers that continues on other servers when one fails.

    When a server fails, the session bans it, refreshes the routes, opens a new chain and feeds all tokens again. The
    caller only sees a pause. (Petals' own failover in 2.2.0.post1 and 2.3.0.dev2 starts the new server at position 0
    with the old history, and fails for ever: bigscience-workshop/petals#587.)

    Args:
        parts: What of the model runs in this process.
        routes: The model's routes.
        needed: Most tokens that each row will have.
        max_length: Tokens of attention cache to reserve on each server for each row; at least `needed`.
        settings: Time limits of all waits, and the number of attempts.
        make_room: Closes this client's idle sessions, or waits until another of its sessions ends; called when a
            server's attention cache is full. Returns whether there was one. Then the attempt is not counted.
        step_costs: Measures its steps; see `Session`.
    """

    def __init__(
        self,
        parts: ModelParts,
        routes: Routes,
        *,
        needed: int,
        max_length: int,
        settings: Settings,
        make_room: Callable[[], bool] = lambda: False,
        step_costs: StepCosts | None = None,
    ) -> None:
        super().__init__(max_length, step_costs)
        self._parts, self._routes, self._settings = parts, routes, settings
        self._needed, self._make_room = needed, make_room
        self._chain: SpanChain | None = None
        self._rested = False  # whether no step has worked since `resume`; servers may have closed an idle session
        self._routes_are_old = False
        self._limited: set[str] = set()  # servers that have told how much room they have
        self._waits_for_room = False  # whether to ask full servers to wait
        self._made = 0  # how many times room was made since the last step that worked

    @property
    def can_roll_back(self) -> bool:
        """Whether the servers can forget tokens; without a chain, whether those can of which the next one will be."""
        return self._routes.can_roll_back if self._chain is None else self._chain.can_roll_back

    def resume(self, position: int, needed: int) -> None:
        """Prepare the idle session for another request; see `Session.resume`."""
        self._rested, self._needed = True, needed
        if position < self.position:
            self.roll_back(position)

    def roll_back(self, position: int) -> None:
        """Forget the tokens from `position` on; see `Session.roll_back`.

        The servers may be others than those that were asked for: a failure has replaced them, or a server has joined
        before the first step. If they cannot forget, their chain is closed, and the next step feeds all tokens again.
        """
        self._seen.cut(position)
        if self._chain is not None:
            if self._chain.can_roll_back:
                self._chain.roll_back(position)
            else:
                self.close()

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        """Feed more tokens, see `Session.extend`; when a server fails, feed all tokens to a new chain.

        Raises:
            SpanFailedError: A span of blocks failed at each attempt.
            BlocksMissingError: Some blocks had no server within `connect_timeout`.
            SwarmUnreachableError: The DHT gave no answer at each attempt, or the swarm has been closed.
            CacheLimitError: The servers' caches are too small for `needed` tokens.
        """
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._settings.max_retries + 1),
            wait=lambda retry_state: self._settings.pause(retry_state.attempt_number),
            retry=tenacity.retry_if_exception(self._may_pass),
            reraise=True,
        )
        try:
            logits: torch.Tensor = attempts(self._attempt, ids, order, last)
        except SpanError as error:
            cause = error.__cause__ or error
            raise SpanFailedError(error.span.start, error.span.end, self._settings.max_retries + 1, cause) from cause
        self._seen.add(ids, order)
        return logits

    def _attempt(self, ids: torch.Tensor, order: torch.Tensor | None, last: int) -> torch.Tensor:
        while True:
            try:
                logits = self._try(ids, order, last)
            except SpanError as error:
                self.close()
                if not self._routes.is_open:
                    raise SwarmUnreachableError(CLOSED) from None
                if not self._recover(error):
                    raise
            except BaseException:  # the chain is in the middle of a step
                self.close()
                raise
            else:
                self._rested = self._routes_are_old = self._waits_for_room = False
                self._made = 0
                return logits

    def _try(self, ids: torch.Tensor, order: torch.Tensor | None, last: int) -> torch.Tensor:
        fed, fed_order = ids, order
        is_usual = self._chain is not None  # connecting takes longer
        if self._chain is None:
            if self._routes_are_old:
                self._routes.refresh(self._settings.connect_timeout)
            self._chain = SpanChain(
                self._routes, self.max_length, self._needed, self._settings, wait_for_room=self._waits_for_room
            )
            self.max_length = self._chain.max_length
            fed, fed_order = self._seen.with_more(ids, order), None
        with self.step_costs.measure(*fed.shape, chain=self._chain.peer_ids, is_usual=is_usual):
            return self._feed(self._chain, fed, fed_order, last)

    def _recover(self, error: SpanError) -> bool:
        """Decide what follows a failure; return whether to repeat the step at once, as the same attempt.

        If not, the next attempt avoids the server: it is banned, or, if it is full, other servers are preferred.
        """
        peer_id, limit = error.span.server.peer_id, error.cache_limit
        is_news = peer_id not in self._limited and len(self._limited) < _MOST_LIMITED
        if limit is not None and limit < self.max_length and is_news:
            self._limited.add(peer_id)  # believed once
            self._routes.note_limit(peer_id, limit)
            return True  # with a smaller reservation, or other servers
        if self._rested:
            self._rested = False
            return True
        if error.is_full:  # sessions of this or other clients fill it; it has room again when they end
            self._routes.note_full(peer_id)
            self.max_length = self._needed
            waited = self._waits_for_room
            if not waited and self._routes.has_way_around(error.span):
                self._waits_for_room = True
                return True
            has_room = self._made < _MOST_MADE and self._make_room()
            self._made += has_room
            self._waits_for_room = not has_room
            return has_room or not waited
        self._ban([error, *error.others])
        self._routes_are_old = True
        return False

    def _ban(self, errors: Sequence[SpanError]) -> None:
        """Ban the servers that failed, and log each once a ban."""
        banned = [error for error in errors if self._routes.ban(error.span.server.peer_id)]
        for error in banned:
            span = error.span
            way = "going around it" if self._routes.has_way_around(span) else "and there is no way around it"
            cause = repr(error.__cause__)[:_LONGEST_REASON]
            logger.warning("Blocks %d:%d on %s failed, %s: %s", span.start, span.end, span.server.peer_id, way, cause)

    def _may_pass(self, error: BaseException) -> bool:
        """Whether another attempt may help; where blocks were missing, servers for them have been waited for."""
        if not isinstance(error, SpanError | SwarmError) or isinstance(error, CacheLimitError | BlocksMissingError):
            return False
        return self._routes.is_open

    def _feed(self, chain: SpanChain, ids: torch.Tensor, order: torch.Tensor | None, last: int) -> torch.Tensor:
        rows = ids.shape[0]
        length = max(1, self._settings.prefill_chunk_tokens // rows)
        ends: list[torch.Tensor] = []  # hidden states of the last positions, which several chunks may have
        with torch.inference_mode():
            for chunk in torch.split(ids, length, dim=1):
                hidden = chain.step(self._parts.embed(chunk), order)
                order = None  # the rows are in their new order now
                ends = [torch.cat([*ends, hidden], dim=1)[:, -last:]]
            logits = self._parts.logits(ends[0].flatten(0, 1))
        if not torch.isfinite(logits).all():
            error = InvalidAnswerError("hidden states that lead to logits that are not finite")
            raise SpanError(chain.spans[-1], error) from error
        return logits.view(rows, last, -1)

    def close(self) -> None:
        """Close the sessions on the servers, which frees their caches."""
        chain, self._chain = self._chain, None
        if chain is not None:
            chain.close()
