"""The state of a text in a compiled grammar, with an ending: tokens that make the text complete.

A token is taken only if the budget has room for an ending after it. So a text that ends is always valid, and
a text that could be endless (strings, arrays, recursion) ends in time.
"""

from __future__ import annotations

import copy
import functools
import itertools
from typing import TYPE_CHECKING

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from langchain_petals.engine.constraints.endings import quick_ending, shortest_ending
from langchain_petals.engine.constraints.patterns import hints
from langchain_petals.engine.constraints.readable_json import Reading
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from langchain_petals.engine.constraints.vocabulary import Vocabulary

# If the budget is nearly used up, the whole ending is checked after each token. If more than `_SPARE` tokens (and more
# than the ending's length) would remain after the ending, each token checks only the ending's first `_OFTEN` tokens.
# The whole ending is then checked after `_OFTEN` tokens, and after a token with a character of `_TURNS`.
_SPARE, _OFTEN, _TURNS = 32, 16, frozenset(b"\"'{}[](),:<>\\")

_SEARCHED = 4096  # bytes: the longest ending that is searched for

_LIMITS = LLParserLimits(verbose_errors=False)  # keep grammar and output out of errors; they may be private


class CompiledGrammar:
    """A grammar in llguidance's format, compiled for a vocabulary; finds a short text of the grammar.

    Raises:
        InvalidRequestError: It does not compile.
    """

    def __init__(self, vocabulary: Vocabulary, grammar: str) -> None:
        self.vocabulary = vocabulary
        self.is_json = "%json" in grammar
        self.matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=_LIMITS)
        self.spelled = LLMatcher(vocabulary.spelling, grammar, log_level=0, limits=_LIMITS)
        for matcher in (self.matcher, self.spelled):
            if matcher.is_error():
                msg = f"the grammar does not compile for this model's tokenizer: {matcher.get_error()}"
                raise InvalidRequestError(msg)
        spelled = ([vocabulary.alphabet.symbols(text) for text in texts] for texts in hints(grammar))
        writable = ([each for each in texts if vocabulary.tokens(each) is not None] for texts in spelled)
        self.alphabet = copy.copy(vocabulary.alphabet)
        self.alphabet.strings, self.alphabet.texts, self.alphabet.parts = writable
        self._quick = vocabulary.tokens(quick_ending(self.alphabet, self.spelled.deep_copy(), _SEARCHED))

    @functools.cached_property
    def _shortest(self) -> list[int] | None:
        return self.vocabulary.tokens(shortest_ending(self.alphabet, self.spelled.deep_copy(), _SEARCHED))

    def text(self, left: int) -> list[int] | None:
        """Return a complete text of at most `left` tokens if one is found, else the shortest that is known."""
        if self._quick is not None and len(self._quick) <= left:
            return self._quick
        return min((each for each in (self._quick, self._shortest) if each is not None), key=len, default=None)


class GrammarState:
    """The state of one row's text in a grammar."""

    def __init__(self, compiled: CompiledGrammar) -> None:
        self._compiled, self._vocabulary = compiled, compiled.vocabulary
        self._matcher, self._spelled = compiled.matcher.deep_copy(), compiled.spelled.deep_copy()
        self._unspelled: list[int] = []  # symbols that `_spelled` has not consumed yet
        self._ending: list[int] | None = []  # tokens; None if none is known
        self._unchecked = 0  # tokens taken since the whole ending was checked
        self._reading: Reading | None = Reading() if compiled.is_json else None

    @property
    def complete(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def steered(self) -> bool:
        """Whether an ending is known."""
        return self._ending is not None

    def begin(self, left: int) -> int | None:
        """Find the first ending; return its length if it is longer than `left` tokens."""
        self._ending = self._compiled.text(left)
        return len(self._ending) if self._ending is not None and len(self._ending) > left else None

    def begin_with(self, data: bytes, left: int) -> bool:
        """Take the first bytes; return whether the grammar allows them and an ending in `left` more tokens."""
        if not data:
            return self.begin(left) is None
        self._unspelled = self._vocabulary.alphabet.symbols(data)
        tokens = self._vocabulary.tokens(self._unspelled)
        if tokens is None or self._matcher.try_consume_tokens(tokens) < len(tokens):
            return False
        self._read(data)
        self._ending = self._found([], left)
        return self._ending is not None

    def allowed(self, ends: Iterable[int]) -> NDArray[np.bool_]:
        """Return a mask over the vocabulary: what may come next; at a possible end, the row's end tokens, too."""
        mask = self._mask(self._matcher)
        if self._matcher.is_error():
            raise InvalidRequestError(self._complaint())
        ends = [end for end in ends if end < len(mask)]
        if self.complete:
            mask[self._vocabulary.ends] = False
            mask[ends] = True
        else:  # an end token may be text in the grammar: it is allowed only if no other token is
            spelled = mask.copy()
            spelled[ends] = False
            mask = spelled if spelled.any() else mask
        return mask

    def forced_token(self, left: int) -> int | None:
        """Return the first token of the checked ending if the budget has no room for another token."""
        return self.next_of_ending(left) if self._ending and len(self._ending) >= left else None

    def can_be_read_with(self, *tokens: int) -> bool:
        """Return whether JSON parsers could read the text with these tokens after it; see `Reading`."""
        if self._reading is None:
            return True
        return self._reading.after(b"".join(self._vocabulary.bytes[token] for token in tokens)) is not None

    def foresee(self, guess: Sequence[int], most: int) -> tuple[list[int], list[int]]:
        """Return as much of a guess as the grammar allows next, and forced text after it: `most` tokens together."""
        matcher = self._matcher.deep_copy()
        allowed = list(guess[: matcher.try_consume_tokens(list(guess))])
        forced: list[int] = []
        most -= len(allowed)
        while len(forced) < most and (more := self._forced(matcher)) and matcher.try_consume_tokens(more) == len(more):
            forced += more
        return allowed, forced[:most]

    def _forced(self, matcher: LLMatcher) -> list[int]:
        """Return tokens of a text that must come next.

        The first tokens of a forced text are also those of any text that begins so; llguidance knows them. The last are
        known where a token is the only one that is allowed. Others are a guess: the longest ones.
        """
        if matcher.is_accepting():
            return []
        if known := matcher.compute_ff_tokens() or self._only(matcher):
            return known
        ids = self._vocabulary.alphabet.byte_ids  # a special token has none, and begins with a byte that has none
        text = itertools.takewhile(ids.__contains__, matcher.compute_ff_bytes())
        return self._vocabulary.tokens([ids[byte] for byte in text]) or []

    def _only(self, matcher: LLMatcher) -> list[int]:
        mask = self._mask(matcher)
        return [int(mask.argmax())] if np.count_nonzero(mask) == 1 else []

    def _mask(self, matcher: LLMatcher) -> NDArray[np.bool_]:
        size = self._vocabulary.size
        bits = np.zeros((size + 31) // 32, dtype=np.int32)
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        return np.unpackbits(bits.view(np.uint8), bitorder="little")[:size].view(np.bool_)

    def take(self, token: int, left: int) -> bool:
        """Take a token if the text can then end within `left` tokens; return whether it was taken."""
        if not self._matcher.consume_token(token):
            raise InvalidRequestError(self._complaint())
        unchecked = self._unchecked
        ending = self._ending_after(token, left)
        if ending is None and self._ending is not None:
            self._matcher.rollback(1)
            self._unchecked = unchecked  # the kept ending was not checked
            return False
        self._ending = ending
        self._unspelled += self._vocabulary.symbols(token)
        self._read(self._vocabulary.bytes[token])
        return True

    def _read(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading = self._reading.after(data)

    def next_of_ending(self, left: int) -> int | None:
        """Return the first token of a checked ending; None if none is known or needed."""
        if self._unchecked and not self._completes(self._ending or []):
            self._ending = self._found([], left) or self._found([], left, shortest_ending)
        return self._ending[0] if self._ending else None

    def _ending_after(self, token: int, left: int) -> list[int] | None:
        ending = self._ending
        if ending is None:  # searching at each step would take long
            self._unchecked += 1
            return self._found([token], left) if self._unchecked % _OFTEN == 0 else None
        if ending and ending[0] == token:
            return ending[1:]
        if len(ending) <= left and self._still_completes(token, ending, left):
            return ending
        return self._found([token], left)

    def _still_completes(self, token: int, ending: list[int], left: int) -> bool:
        plain = self._unchecked < _OFTEN and _TURNS.isdisjoint(self._vocabulary.bytes[token])
        if plain and left - len(ending) > max(len(ending), _SPARE):
            self._unchecked += 1
            soon = ending[:_OFTEN]
            continues = self._matcher.validate_tokens(soon) == len(soon) if ending else self.complete
            return continues and self.can_be_read_with(token, *soon)
        return self._completes(ending) and self.can_be_read_with(token, *ending)

    def _completes(self, ending: list[int]) -> bool:
        taken = self._matcher.try_consume_tokens(ending)
        completes = taken == len(ending) and self.complete
        self._matcher.rollback(taken)
        if completes:
            self._unchecked = 0
        return completes

    def _found(
        self, tokens: Sequence[int], left: int, search: Callable[..., list[int] | None] = quick_ending
    ) -> list[int] | None:
        """Search for an ending after these tokens."""
        if self._unspelled:
            self._spelled.consume_tokens(self._unspelled)
            self._unspelled = []
        taken = self._spelled.try_consume_tokens([each for token in tokens for each in self._vocabulary.symbols(token)])
        symbols = search(self._compiled.alphabet, self._spelled, min(_SEARCHED, 8 * left + 64))
        self._spelled.rollback(taken)
        self._unchecked = 0
        ending = self._vocabulary.tokens(symbols)
        if ending is None or len(ending) > left or not self.can_be_read_with(*tokens, *ending):
            return None
        return ending

    def _complaint(self) -> str:
        return f"the grammar cannot be followed any further: {self._matcher.get_error()}"
