"""Constraints on an answer, as the engine takes them."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_petals.errors import InvalidRequestError


@dataclass(frozen=True)
class Trigger:
    """A marker in free text after which a grammar applies.

    Attributes:
        marker: Text or special token; it is part of the answer.
        grammar: Grammar of the text that must follow the marker; see `Constraint.grammar`. None forbids the marker:
            if it is one token, that token is never chosen. If it is longer, the answer ends before the part of it that
            the model wrote. So does an answer for which too few tokens are left after its marker began.
        at_start: Whether the marker counts only if nothing but white space and reasoning comes before it.
    """

    marker: str
    grammar: str | None
    at_start: bool = False


@dataclass(frozen=True)
class Constraint:
    """A constraint on an answer: on the whole answer (`grammar`), or on the text after a marker (`triggers`).

    Free text is sampled and stopped as without a constraint. Where a grammar applies, stop sequences are ignored, and
    end tokens are allowed where the text may end. If `bad_words_ids`, `no_repeat_ngram_size` and `min_new_tokens`
    forbid all tokens that the grammar allows, the grammar takes precedence.

    Attributes:
        grammar: Grammar of the whole answer: Lark, or anything else that `llguidance.LLMatcher` takes. The functions
            of this package build valid ones.
        triggers: The answer is free text up to one of these markers. After a marker its grammar applies.
        repeat: Whether free text and further markers may follow the grammar's text. Otherwise the answer ends there.
        markers: Names of rules that the grammars use but do not define, and the text of each. The text is matched as a
            special token if the model has such a token. The answer's text contains the special tokens of these rules
            and of the triggers' markers.
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
        """Refuse a constraint with both a grammar and triggers, or neither, or with an empty marker."""
        if (self.grammar is None) == (not self.triggers):
            msg = "a constraint is either a grammar or triggers; give one of them"
            raise InvalidRequestError(msg)
        if any(not trigger.marker for trigger in self.triggers):
            msg = "a trigger's marker is empty; use the constraint's grammar to constrain the whole answer"
            raise InvalidRequestError(msg)
