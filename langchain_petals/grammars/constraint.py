"""Constraints on an answer, as the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_petals.errors import InvalidRequestError


@dataclass(frozen=True)
class Trigger:
    """A marker in free text after which a grammar applies.

    Attributes:
        marker: Text or special token; it is part of the answer.
        grammar: Grammar of the text that must follow the marker; see `Constraint.grammar`. None forbids the marker.
            Then a marker of one token is never chosen. A model that has written the beginning of a longer marker, or
            of one for which too few tokens are left, cannot undo that: its answer ends before that beginning.
        at_start: Whether the marker counts only if nothing but white space and reasoning comes before it.
    """

    marker: str
    grammar: str | None
    at_start: bool = False


@dataclass(frozen=True)
class Constraint:
    """A constraint on an answer: on the whole of it (`grammar`), or from a marker on (`triggers`).

    Free text is sampled and stopped as without a constraint. Where a grammar applies, stop sequences are ignored, and
    end tokens are allowed where the text may end. If `bad_words_ids`, `no_repeat_ngram_size` and `min_new_tokens` would
    forbid everything that the grammar allows, the grammar takes precedence.

    Attributes:
        grammar: Grammar of the whole answer: Lark, or anything else that `llguidance.LLMatcher` takes. The functions
            of this package build valid ones.
        triggers: The answer is free text up to one of these markers. From there its grammar applies to its end.
        repeat: Whether free text, with further markers, may follow. Otherwise the answer ends there.
        markers: Names of rules that the grammars use but do not define, and the text of each. It is matched as a
            special token if the model has one with this text. Special tokens among these and among the markers of
            triggers appear in the answer's text.
        reasoning: The texts before and after the reasoning at the beginning of a free text. Markers in reasoning count;
            those with `at_start` count only after it.
        reasoning_begun: Whether the prompt ends inside of the reasoning.

    Raises:
        InvalidRequestError: Both `grammar` and `triggers` are given, or neither.
    """

    grammar: str | None = None
    triggers: tuple[Trigger, ...] = ()
    repeat: bool = True
    markers: tuple[tuple[str, str], ...] = ()
    reasoning: tuple[str, str] | None = None
    reasoning_begun: bool = False

    def __post_init__(self) -> None:
        """Refuse a constraint that has two meanings, or none."""
        if (self.grammar is None) == (not self.triggers):
            msg = "a constraint is either a grammar or triggers; give one of them"
            raise InvalidRequestError(msg)
        if any(not trigger.marker for trigger in self.triggers):
            msg = "a trigger's marker is empty; use the constraint's grammar to constrain the whole answer"
            raise InvalidRequestError(msg)
