"""The tokens that a session has been fed."""

from __future__ import annotations

import torch

_LEAST_CAPACITY = 256  # tokens


class SeenTokens:
    """Rows of tokens of equal length; the capacity doubles when it is used up, so most steps copy only new tokens."""

    def __init__(self) -> None:
        self._room = torch.empty(0, 0, dtype=torch.int64)
        self._length = 0

    def __len__(self) -> int:
        """Return the number of tokens of each row."""
        return self._length

    @property
    def rows(self) -> torch.Tensor:
        """All tokens, shape (rows, tokens)."""
        return self._room[:, : self._length]

    @property
    def first_row(self) -> list[int]:
        """The tokens of the first row."""
        return self.rows[0].tolist() if self._length else []

    def with_more(self, ids: torch.Tensor) -> torch.Tensor:
        """Return all tokens and then `ids`, shape (rows, tokens); nothing is added."""
        return torch.cat([self.rows, ids], dim=1) if self._length else ids

    def add(self, ids: torch.Tensor) -> None:
        """Add tokens, shape (rows, new tokens)."""
        rows, new = ids.shape
        length = self._length + new
        if length > self._room.shape[1]:
            room = torch.empty(rows, max(2 * self._length, length, _LEAST_CAPACITY), dtype=torch.int64)
            if self._length:
                room[:, : self._length] = self.rows
            self._room = room
        self._room[:, self._length : length] = ids
        self._length = length

    def cut(self, length: int) -> None:
        """Remove the tokens from position `length` on."""
        self._length = min(self._length, length)
