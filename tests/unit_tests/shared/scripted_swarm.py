"""A swarm of one span with any number of servers; it records what a session opens, feeds, bans and closes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.network.span_chain import SpanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from langchain_petals.engine.settings import Settings


@dataclass
class Chain:
    """Replaces a `SpanChain`.

    Attributes:
        swarm: The swarm that records it.
        max_length: Tokens of attention cache that it reserves.
        wait_for_room: Whether full servers wait for room.
        steps: The tokens of each row that each step fed.
        closed: Whether it was closed.
    """

    swarm: ScriptedSwarm
    peer_id: str
    max_length: int
    wait_for_room: bool = False
    steps: list[list[list[int]]] = field(default_factory=list)
    closed: bool = False
    _seen: torch.Tensor | None = None

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        assert not self.closed
        self.steps.append(tokens.tolist())
        cause = self.swarm.failure(self.swarm.steps)
        self.swarm.steps += 1
        if cause is not None:
            raise SpanError(SimpleNamespace(start=2, end=5, peer_id=self.peer_id), cause) from cause
        self._seen = tokens if self._seen is None else torch.cat([self._seen, tokens], dim=1)
        return self._seen

    def roll_back(self, position: int) -> None:
        assert self._seen is not None
        self._seen = self._seen[:, :position]

    def close(self) -> None:
        self.closed = True


class ScriptedSwarm:
    """A swarm, its routes and its model.

    The model's logits, shape (rows, vocabulary), are the tokens that the servers of the active chain have seen, then
    zeros.

    Args:
        failures: Errors by the number of the step, counted over all chains; the one at -1 is raised at each step.
        no_routes: Errors of the first attempts to find a chain.
        can_roll_back: Whether the servers can forget tokens.

    Attributes:
        chains: Chains that were opened.
        banned: Peers that were banned.
        full: Peers that were noted as full.
        refreshed: The time-out of each refresh of the routes.
        steps: Number of steps of all chains.
    """

    vocabulary = 64
    device = "cpu"

    def __init__(
        self,
        failures: dict[int, BaseException] | None = None,
        *,
        no_routes: list[Exception] | None = None,
        can_roll_back: bool = False,
    ) -> None:
        self._failures, self._no_routes = failures or {}, list(no_routes or [])
        self.can_roll_back = can_roll_back
        self.chains: list[Chain] = []
        self.banned: list[str] = []
        self.full: list[str] = []
        self.refreshed: list[float] = []
        self.steps = 0
        self._active: Chain | None = None

    def failure(self, step: int) -> BaseException | None:
        return self._failures.get(-1, self._failures.get(step))

    # ---- the routes

    def ban(self, peer_id: str) -> None:
        self.banned.append(peer_id)

    def note_full(self, peer_id: str) -> None:
        self.full.append(peer_id)

    def refresh(self, timeout: float) -> None:
        self.refreshed.append(timeout)

    # ---- `SpanChain`

    def open_chain(self, routes: Any, max_length: int, settings: Settings, *, wait_for_room: bool) -> Chain:  # noqa: ARG002
        assert routes is self
        if self._no_routes:
            raise self._no_routes.pop(0)
        self.chains.append(Chain(self, f"server {len(self.chains)}", max_length, wait_for_room))
        return self.chains[-1]

    # ---- the model

    @property
    def transformer(self) -> ScriptedSwarm:
        return self

    @property
    def h(self) -> ScriptedSwarm:
        return self

    @contextlib.contextmanager
    def use_session(self, chain: Chain) -> Iterator[None]:
        self._active = chain
        yield
        self._active = None

    def __call__(self, ids: torch.Tensor) -> Any:
        assert self._active is not None
        seen = self._active.step(ids)
        rows, tokens = seen.shape
        hidden = torch.zeros(rows, ids.shape[1], self.vocabulary)
        hidden[:, -1, :tokens] = seen.float()
        return SimpleNamespace(last_hidden_state=hidden)

    def lm_head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden
