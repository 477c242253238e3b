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

    def with_more(self, ids: torch.Tensor, order: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the rows would be after `add`, shape (rows, tokens); nothing is added."""
        if not self._length:
            return ids
        return torch.cat([self.rows if order is None else self.rows[order], ids], dim=1)

    def add(self, ids: torch.Tensor, order: torch.Tensor | None = None) -> None:
        """Add tokens.

        Args:
            ids: The new tokens, shape (rows, new tokens).
            order: For each row the one that it continues, shape (rows,); None if each continues itself.
        """
        rows, new = ids.shape
        if order is not None and self._length:
            self._room = self._room[order]
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
