"""A session whose answers follow a script, and an engine over such sessions."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import torch

from langchain_petals.engine.engine import Engine
from langchain_petals.engine.sessions import Session
from langchain_petals.engine.step_costs import StepCosts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TRAP = 0
"""The likeliest token where logits must be ignored: inside a prompt, and after the end of an answer."""


class ScriptedSession(Session):
    """A session whose answers follow a script; it records what it was fed.

    Args:
        prompts: The prompt of each row.
        answers: The tokens of each answer.
        vocabulary: Size of the vocabulary.
        held: Tokens that it holds already, for a session of one row.
        failures: Errors to raise, by the number of the step.
        before_step: Called with the number of each step, before the step.
        max_length: Tokens that it claims to have room for.
        can_roll_back: Whether it claims to be able to forget tokens.

    Attributes:
        steps: What was fed: for each step the tokens of each row.
        closed: Set when it is closed.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[int]],
        *,
        vocabulary: int = 512,
        held: Sequence[int] = (),
        failures: dict[int, BaseException] | None = None,
        before_step: Callable[[int], object] | None = None,
        max_length: int = 1000,
        can_roll_back: bool = False,
    ) -> None:
        super().__init__(max_length)
        self._can_roll_back = can_roll_back
        self._texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        self._prompt_lengths = [len(prompt) for prompt in prompts]
        self._vocabulary = vocabulary
        self._rows: list[list[int]] = [list(held) for _ in prompts]
        self._failures = failures or {}
        self._before_step = before_step
        self.steps: list[list[list[int]]] = []
        self.closed = threading.Event()
        self.resumed: list[tuple[int, int]] = []

    @property
    def can_roll_back(self) -> bool:
        """Whether it claims to be able to forget tokens."""
        return self._can_roll_back

    @property
    def position(self) -> int:
        return len(self._rows[0])

    @property
    def ids(self) -> list[int]:
        return self._rows[0]

    def fed(self, row: int) -> list[int]:
        """Return all tokens that were fed for a row."""
        return [token for step in self.steps for token in step[row]]

    def resume(self, position: int, needed: int) -> None:
        self.resumed.append((position, needed))

    def roll_back(self, position: int) -> None:
        assert self._can_roll_back
        self._rows = [row[:position] for row in self._rows]

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        assert order is None, "rows of a script keep their order"
        assert not self.closed.is_set()
        number = len(self.steps)
        if self._before_step is not None:
            self._before_step(number)
        self.steps.append(ids.tolist())
        if number in self._failures:
            raise self._failures[number]
        logits = torch.zeros(len(self._texts), last, self._vocabulary)
        for row, tokens in enumerate(self.steps[-1]):
            self._rows[row] += tokens
            for number in range(last):
                logits[row, number, self._next(row, self.position - last + number + 1)] = 20.0
        return logits

    def _next(self, row: int, position: int) -> int:
        text = self._texts[row]
        return text[position] if self._prompt_lengths[row] <= position < len(text) else TRAP

    def close(self) -> None:
        self.closed.set()


class _ScriptedClient:
    """The part of a `Client` that engines and language models use.

    Args:
        tokenizer: Turns tokens into text.
        open_session: Makes a session for so many rows.
        end_tokens: Ids that end a generation.
        vocabulary_size: Number of logits. None, by default, if nothing is to be forced before a prompt has been fed.

    Attributes:
        opened: Rows and needed tokens of each session.
    """

    family = None
    context_length = None
    is_open = True
    room = math.inf

    def __init__(
        self,
        tokenizer: Any,
        open_session: Callable[[int], ScriptedSession],
        end_tokens: Sequence[int] = (),
        vocabulary_size: int | None = None,
    ) -> None:
        self.vocabulary_size = vocabulary_size
        self.tokenizer, self.end_tokens = tokenizer, tuple(end_tokens)
        self.step_costs = StepCosts()
        self._open_session = open_session
        self.opened: list[tuple[int, int]] = []

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])

    def open_session(self, rows: int, needed: int, *_: object) -> ScriptedSession:
        self.opened.append((rows, needed))
        return self._open_session(rows)

    def reservation(self, _: object, rows: int, needed: int) -> int:
        return rows * needed


class ScriptedEngine(Engine):
    """An engine whose sessions follow a script.

    Args:
        tokenizer: Turns tokens into text.
        open_session: Makes a session for so many rows.
        end_tokens: Ids that end a generation.
        vocabulary_size: Number of logits. None, by default, if nothing is to be forced before a prompt has been fed.

    Attributes:
        opened: Rows and needed tokens of each session.
    """

    def __init__(
        self,
        tokenizer: Any,
        open_session: Callable[[int], ScriptedSession],
        end_tokens: Sequence[int] = (),
        vocabulary_size: int | None = None,
    ) -> None:
        client = _ScriptedClient(tokenizer, open_session, end_tokens, vocabulary_size)
        super().__init__(client)
        self.opened = client.opened
