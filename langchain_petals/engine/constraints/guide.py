"""Constraints on what may be generated: grammars compiled once per client, one guide per row.

A guide lets the sampler see only tokens that a grammar allows and after which the answer can still end in time (see
`grammar_run`). Where text is free it listens for the markers that make a grammar hold.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from langchain_petals.engine.constraints.grammar_state import CompiledGrammar, GrammarState
from langchain_petals.engine.constraints.opening import Opening
from langchain_petals.engine.constraints.vocabulary import Vocabulary
from langchain_petals.engine.shared_values import SharedValues
from langchain_petals.errors import InvalidRequestError, OutputLimitError
from langchain_petals.grammars import lark_string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from langchain_petals.grammars import Constraint, Trigger

_T = TypeVar("_T")

_KEPT = 64  # compiled grammars per client


class Guide:
    """Keeps one row within its constraint.

    Args:
        vocabulary: The tokens.
        constraint: What is asked for.
        start: The grammar that holds from the first token on, if any.
        triggers: What makes a grammar hold, and which.
        end_tokens: Ids that end a generation.

    Attributes:
        holds: Whether the last token belongs to what a grammar rules.
        finished: Whether the answer is complete and nothing may follow.
        ended: Whether the last token ended the answer; an end token that is a part of the grammar's text does not.
        cut: Whether the budget, and not the model, chose a token: what it wanted could not have been ended in time.
        visible: Special tokens that are part of the answer's text, and how they read.
        markers: Texts that make a grammar hold.
        unfinished: The beginning of a marker that the answer ended with, since no call may follow; it is no text.
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
        self._run = None if start is None else GrammarState(start)
        self._begun = self._run is None
        self._triggers = [(each.marker.encode(), each, compiled) for each, compiled in triggers]
        self._longest = max((len(marker) for marker, *_ in self._triggers), default=0)
        self._heard = b""  # free text since the start or the last call, as far as a marker may begin in it
        self._opening = Opening(constraint.reasoning, begun=constraint.reasoning_begun)
        self.holds = self.finished = self.ended = self.cut = False
        markers = [text for _, text in constraint.markers] + [trigger.marker for trigger in constraint.triggers]
        self.markers = tuple(trigger.marker for trigger in constraint.triggers)
        self.unfinished = ""
        self.visible = {vocabulary.specials[text]: text for text in markers if text in vocabulary.specials}

    @property
    def complete(self) -> bool:
        """Whether the answer is valid as it is: no grammar holds, or it allows the end here."""
        return self.finished or self._run is None or self._run.complete

    @property
    def steered(self) -> bool:
        """Whether a way to end the answer is known."""
        return self._run is None or self._run.steered

    def choose(self, pick: Callable[[torch.Tensor | None], tuple[int, _T]], left: int) -> tuple[int, _T]:
        """Choose the next token.

        Args:
            pick: Chooses among the tokens that a mask of shape (vocabulary,) allows, None for all. What it returns
                beside the token is handed on.
            left: Tokens of the budget, this one included.

        Raises:
            OutputLimitError: No text that the grammar allows is as short as the budget.
        """
        if self._run is None:
            return self._choose_freely(pick, left)
        if not self._begun:
            self._begun = True
            needed = self._run.begin(left)
            if needed is not None:
                raise OutputLimitError(left, needed=needed)
        return self._choose_within(self._run, pick, left)

    def _choose_within(
        self, run: GrammarState, pick: Callable[[torch.Tensor | None], tuple[int, _T]], left: int
    ) -> tuple[int, _T]:
        self.holds = True
        # the model is asked even where there is only one way, to know whether it would have gone it by itself
        forced = run.must_leave(left)
        mask = self._only(forced) if forced is not None and self.cut else torch.from_numpy(run.allowed(self._ends))
        while True:
            if not mask.any():
                msg = "the grammar allows no token of this model's vocabulary here"
                raise InvalidRequestError(msg)
            token, more = pick(mask)
            if token in self._ends and run.complete:
                self.finished = self.ended = True
                return token, more
            if not run.can_be_read_with(token):
                mask = mask.clone()
                mask[token] = False
                continue
            if run.take(token, left - 1):
                break
            self.cut = True
            # the first step of the way out, or the end, or (when the way has been lost) anything else
            mask = mask.clone()
            mask[token] = False
            if run.complete and self._ends:
                mask = self._only(*self._ends)
            elif (forced := run.way_out(left)) is not None:
                mask = self._only(forced)
        self._leave_if_finished(run)
        return token, more

    def _choose_freely(self, pick: Callable[[torch.Tensor | None], tuple[int, _T]], left: int) -> tuple[int, _T]:
        token, more = pick(None)
        mask: torch.Tensor | None = None
        while not self._hear(token, left - 1):  # it would begin a call that cannot go on, or not end in time
            if self.unfinished and self._ends:
                # The model is in the middle of a marker. It would write the call all the same, without one character.
                self.ended = True
                return pick(self._only(*self._ends))
            if mask is None:
                mask = torch.ones(self._vocabulary.size, dtype=torch.bool)
            mask[token] = False
            token, more = pick(mask)
        return token, more

    def _hear(self, token: int, left: int) -> bool:
        """Listen for a marker; return False if the token completes one, but no call of `left` tokens can follow."""
        self.holds = False
        self.ended = token in self._ends
        if self.ended or token >= self._vocabulary.size:
            return True
        if self._vocabulary.tokenizer.is_special_token(token):
            text = self.visible.get(token)
            for _, trigger, compiled in self._triggers:
                if trigger.marker == text and (not trigger.at_start or self._at_start(self._heard)):
                    return self._enter(compiled, b"", left)
            return True
        # also for a marker that is a special token: the model may spell it
        heard = self._heard + self._vocabulary.bytes[token]
        found = []
        for marker, trigger, compiled in self._triggers:
            at = heard.find(marker)
            if at >= 0 and (not trigger.at_start or self._at_start(heard[:at])):
                found.append((at, heard[at + len(marker) :], compiled))
        if found:
            at, rest, compiled = min(found, key=lambda each: each[0])
            return self._enter(compiled, rest, left, self._heard[at:])
        keep = max(0, len(heard) - self._longest + 1)
        dropped, self._heard = heard[:keep], heard[keep:]
        self._opening.add(dropped)
        return True

    def _at_start(self, heard: bytes) -> bool:
        """Whether no text comes before what is heard next, if this is what was heard last."""
        opening = copy.copy(self._opening)
        opening.add(heard)
        return opening.blank

    def _enter(self, compiled: CompiledGrammar | None, rest: bytes, left: int, written: bytes = b"") -> bool:
        """Let a grammar hold if it allows what its marker's last token has beyond the marker, and there is room.

        Args:
            compiled: The grammar; None if the marker must not be written.
            rest: What comes after the marker.
            left: Tokens of the budget.
            written: What of the marker came before its last token.
        """
        run = None if compiled is None else GrammarState(compiled)
        if run is None or not run.begin_with(rest, left):
            if compiled is None or GrammarState(compiled).begin(left) is not None:  # another token would not do either
                self.unfinished = written.decode(errors="replace")
                self.cut = self.cut or compiled is not None
            return False
        self._run, self._heard, self.holds = run, b"", True
        self._opening.end()
        self._leave_if_finished(run)
        return True

    def _leave_if_finished(self, run: GrammarState) -> None:
        if run.finished or (run.complete and not self._ends):
            self._run = None
            self.finished = not (self._constraint.triggers and self._constraint.repeat)

    def _only(self, *tokens: int) -> torch.Tensor:
        mask = torch.zeros(self._vocabulary.size, dtype=torch.bool)
        mask[[token for token in tokens if token < len(mask)]] = True
        return mask


class Grammars:
    """The compiled grammars of a client; any thread may ask for a guide.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: SharedValues[str, Vocabulary] = SharedValues(kept=1)
        self._compiled: SharedValues[str, CompiledGrammar] = SharedValues(_KEPT)

    def guide(self, constraint: Constraint, end_tokens: Iterable[int]) -> Guide:
        """Return a guide for one row.

        Args:
            constraint: What is asked for.
            end_tokens: Ids that end the row.

        Raises:
            InvalidRequestError: The tokenizer or a grammar cannot be used; says why.
        """
        vocabulary = self._vocabulary.get("", lambda: Vocabulary(self._tokenizer))
        rules = _special_rules(dict(constraint.markers), vocabulary.specials)

        def compiled(grammar: str | None) -> CompiledGrammar | None:
            if grammar is None:
                return None
            return self._compiled.get(grammar + rules, lambda: CompiledGrammar(vocabulary, grammar + rules))

        start = compiled(constraint.grammar)
        triggers = [(each, compiled(each.grammar)) for each in constraint.triggers]
        return Guide(vocabulary, constraint, start, triggers, end_tokens)


def _special_rules(names: Mapping[str, str], specials: Mapping[str, int]) -> str:
    """Return Lark rules, one for each name, that match a marker's text: as a special token where it is one.

    Args:
        names: The marker's text by the rule's name.
        specials: Ids of the vocabulary's special tokens by their text.
    """
    return "".join(
        f"\n{name}: <[{specials[text]}]>" if text in specials else f"\n{name}: {lark_string(text)}"
        for name, text in names.items()
    )
