"""What both model classes do with their answers, whichever way they were called."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_petals.pieces import Pieces


class Answer(Protocol):
    """An answer that is made of the pieces of a generation."""

    @property
    def generation(self) -> Pieces:
        """The source of the pieces."""

    @property
    def warnings(self) -> Sequence[str]:
        """The problems of the answer; complete when it has ended."""


def cancel_answer(answer: Answer) -> None:
    """Stop the work on an answer."""
    answer.generation.cancel()


def show_warnings(answers: Iterable[Answer]) -> None:
    """Show each warning of the answers once."""
    for warning in dict.fromkeys(each for answer in answers for each in answer.warnings):
        warnings.warn(warning, stacklevel=3)
