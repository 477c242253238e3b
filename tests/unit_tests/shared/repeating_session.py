"""A session whose logits depend on all tokens that it holds, and which often repeats itself."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from langchain_petals.engine.sessions import Session
from langchain_petals.engine.step_costs import StepCosts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class EqualCosts(StepCosts):
    """Costs where each step takes a second, so that drafts are as long as they can be."""

    def seconds(self, rows: int, tokens: int, sessions: int = 1) -> float | None:  # noqa: ARG002 - equal for all
        return 1.0


class RepeatingSession(Session):
    """A session of one row.

    Most of each token's logits depends on the token before it, so the text repeats itself, and a part on all tokens so
    far, so a token that should have been forgotten changes what comes.

    Args:
        vocabulary: Size of the vocabulary.
        seed: Seed of the logits.
        fickle: How large the part is that depends on all tokens.
        prompt: Tokens of the prompt.
        said: Tokens that come first after it.
        can_roll_back: Whether it can forget tokens.
        before_step: Called with the number of each step, before the step.

    Attributes:
        steps: What was fed in each step.
        rolled_back: The positions that it was rolled back to.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        seed: int = 0,
        fickle: float = 2.0,
        prompt: int = 0,
        said: Sequence[int] = (),
        can_roll_back: bool = True,
        before_step: Callable[[int], object] = lambda _: None,
    ) -> None:
        super().__init__(100_000, EqualCosts())
        self._vocabulary, self._seed, self._fickle = vocabulary, seed, fickle
        self._prompt, self._said, self._can_roll_back = prompt, list(said), can_roll_back
        self._before_step = before_step
        self._held: list[int] = []
        self.steps: list[list[int]] = []
        self.rolled_back: list[int] = []

    @property
    def can_roll_back(self) -> bool:
        return self._can_roll_back

    @property
    def position(self) -> int:
        return len(self._held)

    @property
    def ids(self) -> list[int]:
        return list(self._held)

    def extend(self, ids: torch.Tensor, order: torch.Tensor | None = None, *, last: int = 1) -> torch.Tensor:
        assert order is None
        self._before_step(len(self.steps))
        [tokens] = ids.tolist()
        self.steps.append(tokens)
        self._held += tokens
        lengths = range(self.position - last + 1, self.position + 1)
        return torch.stack([self._logits(self._held[:length]) for length in lengths])[None]

    def _logits(self, held: Sequence[int]) -> torch.Tensor:
        parts = [self._noise(held[-1:]) * 10, self._noise(held) * self._fickle]
        logits = torch.from_numpy(np.sum(parts, axis=0)).float()
        if 0 <= len(held) - self._prompt < len(self._said):
            logits[self._said[len(held) - self._prompt]] += 1000
        return logits

    def _noise(self, tokens: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        number = zlib.crc32(np.array(tokens, dtype=np.int64).tobytes(), self._seed)
        return np.random.default_rng(number).standard_normal(self._vocabulary)

    def roll_back(self, position: int) -> None:
        assert self._can_roll_back
        assert position < self.position
        self.rolled_back.append(position)
        del self._held[position:]

    def resume(self, position: int, needed: int) -> None:  # noqa: ARG002 - it has room
        if position < self.position:
            self.roll_back(position)

    def close(self) -> None:
        """Do nothing: no cache is held."""
