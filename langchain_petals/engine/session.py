"""The seam below the token loop: a session holds rows of tokens and gives the logits for what comes next."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import tenacity
import torch

from langchain_petals.engine.span_chain import SpanChain, SpanError
from langchain_petals.errors import PromptTooLongError, SpanFailedError, SwarmError

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_petals.engine.petals_compat import Routes

logger = logging.getLogger(__name__)


class Session(Protocol):
    """Rows of tokens that a model has seen, all of the same length."""

    @property
    def position(self) -> int:
        """Tokens of each row that the model has seen."""

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Feed more tokens.

        Args:
            ids: Token ids, shape (rows, new tokens).

        Returns:
            Logits for the token after the last one, shape (rows, vocabulary).
        """

    def close(self) -> None:
        """Give the memory back; may be called twice."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, and how often to try again.

    Attributes:
        connect: Seconds to open a connection to a server, and to learn the routes.
        step: Seconds for one step of one token through one server.
        per_token: Seconds more for each further token of the step.
        retries: Further attempts after a failure before giving up; counted anew after each step that worked.
        longest_pause: Longest back-off between two attempts, in seconds; the first retry comes at once.
    """

    connect: float = 10.0
    step: float = 30.0
    per_token: float = 0.05
    retries: int = 3
    longest_pause: float = 8.0

    def pause(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait before the next attempt: none at first, then 0.5, 1, 2, ..."""
        failures = state.attempt_number
        return 0.0 if failures == 1 else min(0.25 * 2.0 ** (failures - 1), self.longest_pause)

    def for_tokens(self, tokens: int) -> float:
        """Return the seconds that a step of this many tokens (rows times length) may take on one server."""
        return self.step + self.per_token * tokens


class SwarmSession:
    """A session on a chain of servers that outlives them.

    When a server fails, it is banned, the routes are refreshed, a new chain is opened and all tokens are fed again:
    the caller sees a pause. (Petals' own failover restarts the replacement at position 0 with the old history and
    fails for ever, in 2.2.0.post1 and in 2.3.0.dev2: bigscience-workshop/petals#587.)

    Args:
        model: Petals' distributed model.
        routes: The model's routes.
        max_length: Tokens of attention cache to reserve on each server for each row.
        patience: Bounds of all waits.
        abandoned: Tells that nobody waits for the result any more; there is no further attempt then.
    """

    def __init__(
        self,
        model: Any,
        routes: Routes,
        max_length: int,
        patience: Patience,
        abandoned: Callable[[], bool],
    ) -> None:
        self._model, self._routes, self._max_length = model, routes, max_length
        self._patience, self._abandoned = patience, abandoned
        self._failed = False  # whether the last step failed, so that the routes are out of date
        self._chain: SpanChain | None = None
        self._ids: torch.Tensor | None = None  # everything that was fed

    @property
    def position(self) -> int:
        """Tokens of each row that the servers have seen."""
        return 0 if self._ids is None else self._ids.shape[1]

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        """Feed more tokens, again from the start on other servers where one fails.

        Args:
            ids: Token ids, shape (rows, new tokens).

        Returns:
            Logits for the token after the last one, shape (rows, vocabulary).

        Raises:
            SpanFailedError: A span of blocks failed on every attempt.
            SwarmError: There were no routes.
            PromptTooLongError: The servers' caches are too small for `max_length`.
        """
        known = ids if self._ids is None else torch.cat([self._ids, ids], dim=1)
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._patience.retries + 1) | (lambda _: self._abandoned()),
            wait=self._patience.pause,
            retry=tenacity.retry_if_exception_type((SpanError, SwarmError)),
            retry_error_callback=_give_up,
        )
        logits: torch.Tensor = attempts(self._attempt, ids, known)
        self._ids = known
        return logits

    def _attempt(self, ids: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        if self._chain is None:
            if self._failed:
                self._routes.refresh(self._patience.connect)
            self._chain = SpanChain(self._model, self._routes, self._max_length, self._patience)
            ids = known
        try:
            logits = self._forward(self._chain, ids)
        except SpanError as error:
            self._leave(error)
            raise
        self._failed = False
        return logits

    def _leave(self, error: SpanError) -> None:
        """Leave the chain that failed."""
        self._failed = True
        self.close()
        if error.cache_limit is not None:
            raise PromptTooLongError(self._max_length, error.cache_limit) from error
        logger.warning("Blocks %d:%d failed, going around that server: %r", error.start, error.end, error.__cause__)
        self._routes.ban(error.peer_id)

    @torch.inference_mode()
    def _forward(self, chain: SpanChain, ids: torch.Tensor) -> torch.Tensor:
        blocks = self._model.transformer.h
        # petals looks its active session up in a context variable; nothing may yield between here and there
        with blocks.use_session(chain):
            hidden = self._model.transformer(ids.to(self._model.device)).last_hidden_state
        logits: torch.Tensor = self._model.lm_head(hidden[:, -1])
        return logits.float().cpu()

    def close(self) -> None:
        """End the servers' sessions; their caches are free again."""
        chain, self._chain = self._chain, None
        if chain is not None:
            chain.close()


def _give_up(state: tenacity.RetryCallState) -> NoReturn:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, SpanError):
        cause = error.__cause__ or error
        raise SpanFailedError(error.start, error.end, state.attempt_number, cause) from cause
    raise error or RuntimeError
