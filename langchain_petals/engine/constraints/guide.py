"""Constraints on what may be generated: a guide for each row, over grammars that are compiled once per engine.

Where a grammar applies, a guide masks the tokens that the grammar does not allow, and those after which the answer
could not end within the budget (see `grammar_state`). In free text, it watches for markers that begin a grammar.
"""

from __future__ import annotations

import copy
import itertools
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from langchain_petals.engine.constraints.grammar_state import CompiledGrammar, GrammarState
from langchain_petals.engine.constraints.opening import Opening
from langchain_petals.engine.constraints.vocabulary import Vocabulary
from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import lark_string

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_petals.grammars import Constraint, Trigger
    from langchain_petals.tokenizer import Tokenizer

Mask = NDArray[np.bool_]
"""Which tokens are allowed, shape (tokens of the tokenizer,)."""

Choosing = Generator[Mask | None, int, int]
"""The choice of a token; see `Guide.choose`."""

_KEPT = 64  # most compiled grammars of an engine


class Guide:
    """Keeps one row within its constraint.

    Args:
        vocabulary: The model's tokens as bytes.
        constraint: The constraint.
        start: The grammar that applies from the first token on, if any.
        triggers: The constraint's triggers, each with its grammar; None for a marker that must not be written.
        end_tokens: Ids that end a generation.

    Attributes:
        holds: Whether the last token is text of a grammar.
        finished: Whether the answer is complete and nothing may follow.
        ended: Whether the last token ended the answer; an end token that is part of a grammar's text does not.
        cut: Whether a token of the model has been replaced, because after it the answer could not have ended within the
            budget.
        visible: Special tokens that are part of the answer's text, and their texts.
        markers: Texts after which a grammar applies.
        unfinished: The beginning of a marker at the end of the answer, if no call could follow; it is not part of the
            answer.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        constraint: Constraint,
        start: CompiledGrammar | None,
        triggers: Sequence[tuple[Trigger, CompiledGrammar | None]],
        end_tokens: Iterable[int],
    ) -> None:
        self._vocabulary, self._constraint = vocabulary, constraint
        self._ends = frozenset(end_tokens)
        self._start = start
        self._state = None if start is None else GrammarState(start)
        self._begun = start is None
        self._triggers = [(each.marker.encode(), each, compiled) for each, compiled in triggers]
        self._longest = max((len(marker) for marker, *_ in self._triggers), default=0)
        self._recent = b""  # the end of the free text, in which a marker may begin
        self._opening = Opening(constraint.reasoning, begun=constraint.reasoning_begun)
        self.holds = self.finished = self.ended = self.cut = False
        markers = [text for _, text in constraint.markers] + [trigger.marker for trigger in constraint.triggers]
        self.markers = tuple(trigger.marker for trigger in constraint.triggers)
        self.unfinished = ""
        self.visible = {vocabulary.specials[text]: text for text in markers if text in vocabulary.specials}

    @property
    def complete(self) -> bool:
        """Whether the answer may end here: no grammar applies, or it allows the end."""
        return self.finished or self._state is None or self._state.complete

    @property
    def steered(self) -> bool:
        """Whether an ending of the answer is known."""
        return self._state is None or self._state.steered

    def fresh(self) -> Guide:
        """Return a guide for the same constraint that has not chosen anything."""
        triggers = [(each, compiled) for _, each, compiled in self._triggers]
        return Guide(self._vocabulary, self._constraint, self._start, triggers, self._ends)

    def choose(self, left: int) -> Choosing:
        """Choose the next token, in a dialogue with the caller.

        The generator yields a mask of the tokens that are allowed, shape (tokens of the tokenizer,), or None for all.
        The caller sends one of them. If the token cannot be taken, the generator yields another mask; at last, it
        returns the token that was taken. A generator that was sent nothing may be dropped, and begun again with another
        `left`.

        Args:
            left: Tokens left of the budget, this one included.

        Raises:
            OutputLimitError: The shortest text of the grammar is longer than the budget.
            InvalidRequestError: The grammar cannot be followed with this vocabulary.
        """
        if self._state is None:
            return (yield from self._choose_freely(left))
        if not self._begun:
            self._begun = True
            needed = self._state.begin(left)
            if needed is not None:
                raise OutputLimitError(left, needed=needed)
        return (yield from self._choose_within(self._state, left))

    def foresee(self, guess: Sequence[int], most: int, vocabulary: int) -> tuple[list[int], int]:
        """Return as much of a guess as may come next, with the tokens of forced text after it, and their number.

        Nothing changes. Whether the answer ends in time is not looked at. The model may also write the forced text in
        other tokens.

        Args:
            guess: Tokens that may come next.
            most: Most tokens to return.
            vocabulary: Number of the model's tokens; the tokenizer may have more.
        """
        return copy.copy(self)._go_on(guess[:most], most, vocabulary)  # noqa: SLF001 - an object of this class

    def _go_on(self, guess: Sequence[int], most: int, vocabulary: int) -> tuple[list[int], int]:
        self._opening = copy.copy(self._opening)
        guess = list(itertools.takewhile(lambda token: token not in self._ends, guess))  # nothing comes after an end
        free = 0
        while self._state is None:
            if free == len(guess) or self.finished or not self._watch(guess[free], sys.maxsize):
                return guess[:free], 0
            free += 1
        allowed, forced = self._state.foresee(guess[free:], most - free)
        forced = list(itertools.takewhile(lambda token: token < vocabulary and token not in self._ends, forced))
        return [*guess[:free], *allowed, *forced], len(forced)

    def _choose_within(self, state: GrammarState, left: int) -> Choosing:
        self.holds = True
        # ask the model even if the budget allows only one token: `cut` tells whether it would have chosen another
        forced = state.forced_token(left)
        mask = self._only(forced) if forced is not None and self.cut else state.allowed(self._ends)
        while True:
            if not mask.any():
                msg = "the grammar allows no token of this model's vocabulary here"
                raise InvalidRequestError(msg)
            token = yield mask
            if token in self._ends and state.complete:
                self.finished = self.ended = True
                return token
            if not state.can_be_read_with(token):
                mask = mask.copy()
                mask[token] = False
                continue
            if state.take(token, left - 1):
                break
            self.cut = True
            # take the end or the first token of the ending; if no ending is known, any other token
            mask = mask.copy()
            mask[token] = False
            if state.complete and self._ends:
                mask = self._only(*self._ends)
            elif (forced := state.next_of_ending(left)) is not None:
                mask = self._only(forced)
        self._leave_if_finished(state)
        return token

    def _choose_freely(self, left: int) -> Choosing:
        token = yield None
        mask: Mask | None = None
        while not self._watch(token, left - 1):  # the token would begin a call that cannot continue or end in time
            if self.unfinished and self._ends:
                # The model has begun a marker. Without this token, it would write the call without its marker.
                self.ended = True
                return (yield self._only(*self._ends))
            if mask is None:
                mask = np.ones(self._vocabulary.size, dtype=np.bool_)
            mask[token] = False
            token = yield mask
        return token

    def _watch(self, token: int, left: int) -> bool:
        """Watch for a marker; return False if the token completes one but no call of `left` tokens can follow."""
        self.holds = False
        self.ended = token in self._ends
        if self.ended or token >= self._vocabulary.size:
            return True
        if self._vocabulary.tokenizer.is_special_token(token):
            text = self.visible.get(token)
            for _, trigger, compiled in self._triggers:
                if trigger.marker == text and (not trigger.at_start or self._at_start(self._recent)):
                    return self._enter(compiled, b"", left)
            return True
        # The model may also spell a marker that is a special token with other tokens.
        recent = self._recent + self._vocabulary.bytes[token]
        found = []
        for marker, trigger, compiled in self._triggers:
            at = recent.find(marker)
            if at >= 0 and (not trigger.at_start or self._at_start(recent[:at])):
                found.append((at, recent[at + len(marker) :], compiled))
        if found:
            at, rest, compiled = min(found, key=lambda each: each[0])
            return self._enter(compiled, rest, left, self._recent[at:])
        keep = max(0, len(recent) - self._longest + 1)
        dropped, self._recent = recent[:keep], recent[keep:]
        self._opening.add(dropped)
        return True

    def _at_start(self, recent: bytes) -> bool:
        """Return whether the answer has no text yet after `recent`."""
        opening = copy.copy(self._opening)
        opening.add(recent)
        return opening.blank

    def _enter(self, compiled: CompiledGrammar | None, rest: bytes, left: int, written: bytes = b"") -> bool:
        """Apply a grammar after its marker, if it allows `rest` and an ending in time; return whether it does.

        `rest` follows the marker in its last token; `written` is the part of the marker before that token.
        """
        state = None if compiled is None else GrammarState(compiled)
        if state is None or not state.begin_with(rest, left):
            if compiled is None or GrammarState(compiled).begin(left) is not None:  # with any other token, too
                self.unfinished = written.decode(errors="replace")
                self.cut = self.cut or compiled is not None
            return False
        self._state, self._recent, self.holds = state, b"", True
        self._opening.end()
        self._leave_if_finished(state)
        return True

    def _leave_if_finished(self, state: GrammarState) -> None:
        if state.finished or (state.complete and not self._ends):
            self._state = None
            self.finished = not (self._constraint.triggers and self._constraint.repeat)

    def _only(self, *tokens: int) -> Mask:
        mask = np.zeros(self._vocabulary.size, dtype=np.bool_)
        mask[[token for token in tokens if token < len(mask)]] = True
        return mask


class Grammars:
    """The compiled grammars of an engine; thread-safe.

    Args:
        tokenizer: The model's tokenizer, one of transformers' classes.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: SharedValues[str, Vocabulary] = SharedValues(kept=1)
        self._compiled: SharedValues[str, CompiledGrammar] = SharedValues(_KEPT)

    def guide(self, constraint: Constraint, end_tokens: Iterable[int]) -> Guide:
        """Return a guide for one row; the `end_tokens` end the row.

        Raises:
            InvalidRequestError: The tokenizer or a grammar cannot be used; says why.
        """
        vocabulary = self._vocabulary.get("", lambda: Vocabulary(self._tokenizer))
        specials = vocabulary.specials
        # a rule for each marker: its special token if it is one, else its text
        rules = "".join(
            f"\n{name}: <[{specials[text]}]>" if text in specials else f"\n{name}: {lark_string(text)}"
            for name, text in dict(constraint.markers).items()
        )

        def compiled(grammar: str | None) -> CompiledGrammar | None:
            if grammar is None:
                return None
            return self._compiled.get(grammar + rules, lambda: CompiledGrammar(vocabulary, grammar + rules))

        start = compiled(constraint.grammar)
        triggers = [(each, compiled(each.grammar)) for each in constraint.triggers]
        return Guide(vocabulary, constraint, start, triggers, end_tokens)
