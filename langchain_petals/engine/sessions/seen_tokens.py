"""The tokens that a session has been fed: rows of one length that grow step by step."""

from __future__ import annotations

import torch

_ROUND = 256  # tokens


class SeenTokens:
    """Rows of tokens. Room is made for twice as many when it runs out, so that a step does not copy what came before.

    Example:
        >>> seen = SeenTokens()
        >>> seen.add(torch.tensor([[5, 11], [6, 12]]))
        >>> seen.first_row
        [5, 11]
    """

    def __init__(self) -> None:
        self._room = torch.empty(0, 0, dtype=torch.int64)
        self._length = 0

    def __len__(self) -> int:
        """Return how many tokens each row has."""
        return self._length

    @property
    def rows(self) -> torch.Tensor:
        """All of them, shape (rows, tokens)."""
        return self._room[:, : self._length]

    @property
    def first_row(self) -> list[int]:
        """The tokens of the first row."""
        ids: list[int] = self.rows[0].tolist() if self._length else []
        return ids

    def with_more(self, ids: torch.Tensor) -> torch.Tensor:
        """Return all of them with more after them, shape (rows, tokens); they stay as they are."""
        return torch.cat([self.rows, ids], dim=1) if self._length else ids

    def add(self, ids: torch.Tensor) -> None:
        """Take note of more tokens, shape (rows, new tokens)."""
        rows, new = ids.shape
        length = self._length + new
        if length > self._room.shape[1]:
            room = torch.empty(rows, max(2 * self._length, length, _ROUND), dtype=torch.int64)
            if self._length:
                room[:, : self._length] = self.rows
            self._room = room
        self._room[:, self._length : length] = ids
        self._length = length

    def cut(self, length: int) -> None:
        """Forget the tokens from this position on."""
        self._length = min(self._length, length)
