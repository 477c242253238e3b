"""A client over a model in this process, and what came of its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.engine.loading.client import Client
from langchain_petals.engine.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.engine.generation import Generation, TokenLogprobs
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.sessions.session import ReusableSession


@dataclass(frozen=True)
class Outcome:
    """What a request brought."""

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


class LocalClient(Client):
    """A client that tells how many rows its sessions had.

    Args:
        model: A transformers model.
        tokenizer: Its tokenizer.

    Attributes:
        rows: Rows of each session, in the order in which they were opened.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        self.rows: list[int] = []

    def open_session(self, rows: int, needed: int, settings: Settings) -> ReusableSession:
        self.rows.append(rows)
        return super().open_session(rows, needed, settings)

    def run(self, *requests: Request, settings: Settings | None = None) -> list[Outcome]:
        """Run requests that wait together."""
        return [outcome(each) for each in self.engine.submit(requests, settings or Settings(session_cache=0))]

    def run_alone(self, requests: Sequence[Request]) -> list[Outcome]:
        """Run requests one after the other."""
        return [self.run(request)[0] for request in requests]
