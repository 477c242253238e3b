"""What an answer has to look like: what is asked of the engine, in words that it shares with whoever asks."""

from __future__ import annotations

from dataclasses import dataclass

from langchain_petals.errors import InvalidRequestError


@dataclass(frozen=True)
class Trigger:
    """What makes a grammar hold in the middle of free text.

    Attributes:
        marker: Text or special token after which the grammar holds; it is part of the answer.
        grammar: What must come after it, to its last character; see `Constraint.grammar`. None when the marker must not
            be written at all. A marker of one token is then not chosen. A model that has written the beginning of a
            longer one, or of one for which there is no room any more, cannot take that back, and would write the rest
            of the call: its answer ends there, without that beginning.
        at_start: Whether the marker counts only where nothing but white space and reasoning comes before it.
    """

    marker: str
    grammar: str | None
    at_start: bool = False


@dataclass(frozen=True)
class Constraint:
    """What an answer has to look like: as a whole (`grammar`), or from a marker on (`triggers`).

    Free text is sampled, stopped and cut off at the limit as ever. Where a grammar holds, stop sequences are not looked
    for, the end tokens are allowed where the text may end, and what a grammar requires goes before `bad_words_ids`,
    `no_repeat_ngram_size` and `min_new_tokens` if those would forbid everything that it allows.

    Attributes:
        grammar: Lark grammar, or whatever else `llguidance.LLMatcher` takes, of the whole answer; this package has
            functions that write and check it.
        triggers: The answer is free text until one of these; from there its grammar holds until nothing can follow.
        repeat: Whether the text is free again then, and may hold further markers. Otherwise the answer ends there.
        markers: Names of rules that the grammars use without defining them, and the text of each; it is matched as a
            special token where the model has one of this text. Special tokens among these and the triggers' markers
            show in the answer's text.
        reasoning: What stands before and after the reasoning that an answer of free text may begin with; markers count
            in it, but those that count only at the start do after it.
        reasoning_begun: Whether the prompt ends inside of it.

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
        """Refuse what would mean two things, or none."""
        if (self.grammar is None) == (not self.triggers):
            msg = "a constraint is either a grammar or triggers; give one of them"
            raise InvalidRequestError(msg)
        if any(not trigger.marker for trigger in self.triggers):
            msg = "a trigger's marker is empty; use the constraint's grammar for what holds from the start"
            raise InvalidRequestError(msg)
