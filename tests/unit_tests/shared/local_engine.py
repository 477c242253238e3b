"""An engine over a model in this process, and the outcomes of its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.engine import Engine
from langchain_petals.engine.loading import LocalClient
from langchain_petals.engine.settings import Settings
from langchain_petals.engine.step_costs import StepCosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.sessions import LocalSession
    from langchain_petals.pieces import TokenLogprobs


@dataclass(frozen=True)
class Outcome:
    """The result of a request."""

    tokens: list[int]
    text: str
    finish_reason: str | None
    logprobs: list[TokenLogprobs]


def outcome(generation: Generation) -> Outcome:
    """Wait for the end of a generation."""
    pieces = list(generation)
    return Outcome(
        [token for piece in pieces for token in piece.tokens],
        "".join(piece.text for piece in pieces),
        pieces[-1].finish_reason,
        [piece.logprobs for piece in pieces if piece.logprobs],
    )


class _CountingClient(LocalClient):
    """A client that counts the rows of its sessions, which do not depend on how fast the machine is."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.step_costs = StepCosts(clock=lambda: 0.0)  # steps that take no time are not noted
        self.rows: list[int] = []

    def open_session(self, rows: int, *more: Any) -> LocalSession:
        self.rows.append(rows)
        return super().open_session(rows, *more)


class LocalEngine(Engine):
    """An engine over a model in this process that records the rows of its sessions.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.

    Attributes:
        rows: Number of rows of each session, in the order of opening.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        client = _CountingClient(model, tokenizer)
        super().__init__(client)
        self.rows = client.rows

    def run(self, *requests: Request, settings: Settings | None = None) -> list[Outcome]:
        """Run requests that are submitted together."""
        return [outcome(each) for each in self.submit(requests, settings or Settings(session_cache=0))]

    def run_alone(self, requests: Sequence[Request]) -> list[Outcome]:
        """Run requests one after the other."""
        return [self.run(request)[0] for request in requests]
