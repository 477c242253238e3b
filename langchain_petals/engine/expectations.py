"""What is expected of a request before it runs: how long its answer will be, and how many steps that takes."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_petals.engine.generation import Generation
    from langchain_petals.engine.request import Request
    from langchain_petals.engine.settings import Settings

_MEMORY = 0.9  # weight of earlier answers after each further one
# Before the first answer: half of the limit, at most so many tokens; and the shares of tokens that need a step under a
# grammar, alone and where what is forced is all that is spared.
_LONGEST_GUESS = 128
_ALONE, _TOGETHER = 0.4, 0.5


@dataclass(frozen=True)
class Expected:
    """What is expected of a request.

    Attributes:
        prompt: Tokens of the prompt.
        answer: Tokens of the answer.
        alone: Steps for each token of the answer where the row has a session to itself; at most 1.
        together: Share of its tokens that need a step where it shares a session; for the others, its grammar allows
            only one token.
        longest: Most tokens with the prompt.
    """

    prompt: int
    answer: float
    alone: float
    together: float
    longest: int


class _Mean:
    """A mean in which recent values weigh more."""

    def __init__(self) -> None:
        self._sum, self._weight = 0.0, 0.0

    def add(self, total: float, weight: float) -> None:
        self._sum = _MEMORY * self._sum + total
        self._weight = _MEMORY * self._weight + weight

    def value(self, default: float) -> float:
        return self._sum / self._weight if self._weight else default


@dataclass
class _Answers:
    """Earlier answers, with a grammar or without."""

    tokens: _Mean = field(default_factory=_Mean)
    alone: _Mean = field(default_factory=_Mean)
    together: _Mean = field(default_factory=_Mean)


class Expectations:
    """Learns from the answers of one client; safe to use from several threads.

    A limit says little about the length of an answer. Where earlier answers are known, an answer is expected to have
    their mean length, within the request's bounds.
    """

    def __init__(self) -> None:
        self._answers = {False: _Answers(), True: _Answers()}
        self._lock = threading.Lock()

    def note(self, generation: Generation, tokens: int, settings: Settings, *, alone: bool) -> None:
        """Learn from an answer that has ended.

        Args:
            generation: The request, with its counts.
            tokens: Tokens of the answer.
            settings: Those of the request.
            alone: Whether it had a session to itself.
        """
        if not tokens:
            return
        with self._lock:
            answers = self._answers[generation.request.constraint is not None]
            answers.tokens.add(tokens, 1)
            if settings.runs_ahead:
                answers.together.add(tokens - generation.forced_tokens, tokens)
            if alone and settings.runs_ahead and settings.speculation:
                further = tokens - 1  # the prompt's trip brings the first one
                answers.alone.add(min(max(generation.trips - 1, 0), further), further)

    def of(self, request: Request, settings: Settings) -> Expected:
        """Return what is expected of a request."""
        limit, least = request.max_new_tokens, request.sampling.min_new_tokens
        has_grammar = request.constraint is not None
        with self._lock:
            answers = self._answers[has_grammar]
            length = answers.tokens.value(min(limit / 2, _LONGEST_GUESS))
            alone = answers.alone.value(_ALONE if has_grammar else 1.0)
            together = answers.together.value(_TOGETHER) if has_grammar else 1.0
        if not settings.runs_ahead:
            together = 1.0
        if not settings.speculation:
            alone = together
        prompt = len(request.prompt_ids)
        return Expected(prompt, min(limit, max(length, least, 1.0)), alone, together, prompt + limit)
