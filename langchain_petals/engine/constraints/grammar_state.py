"""One text that grows within one compiled grammar, and the way from it to a valid end.

For every token there is a way out that fits into what is left of the budget: a token after which there is none is not
taken. So what ends is always valid, and what has no bound of its own (strings, arrays, recursion) ends in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from langchain_petals.engine.constraints.endings import quick_ending, shortest_ending
from langchain_petals.engine.constraints.patterns import Hints, hints
from langchain_petals.engine.constraints.readable_json import Reading
from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from langchain_petals.engine.constraints.vocabulary import Vocabulary

# The way out is tried after each token when it is about as long as what is left. With more than this many tokens to
# spare (and more than it is long) only its first step is tried, and all of it every so often or when the token has
# one of these characters, after which much may be different.
_SPARE, _OFTEN, _TURNS = 32, 16, frozenset(b"\"'{}[](),:<>\\")

_SEARCHED = 4096  # bytes: the longest way out that is looked for

_LIMITS = LLParserLimits(verbose_errors=False)  # a grammar, and what was generated, may be nobody else's business


class CompiledGrammar:
    """A grammar for one vocabulary, and a short text that it allows.

    Args:
        vocabulary: The tokens.
        grammar: What llguidance takes.

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
        self.alphabet = vocabulary.alphabet.hinted(Hints(*map(self._writable, hints(grammar))))
        self._quick = vocabulary.tokens(quick_ending(self.alphabet, self.spelled.deep_copy(), _SEARCHED))
        self._shortest: list[int] | None = None
        self._searched = False

    def _writable(self, texts: Iterable[bytes]) -> list[bytes]:
        """Return those of the texts that the vocabulary has tokens for."""
        symbols = self.vocabulary.alphabet.symbols
        return [text for text in texts if self.vocabulary.tokens(symbols(text)) is not None]

    def text(self, left: int) -> list[int] | None:
        """Return a whole text that has at most `left` tokens if one is found, or else the shortest that is known."""
        if (self._quick is None or len(self._quick) > left) and not self._searched:
            found = shortest_ending(self.alphabet, self.spelled.deep_copy(), _SEARCHED)
            self._shortest, self._searched = self.vocabulary.tokens(found), True
        return min((each for each in (self._quick, self._shortest) if each is not None), key=len, default=None)


class GrammarState:
    """A row inside a grammar: where it is, and its way out.

    Args:
        compiled: The grammar.
    """

    def __init__(self, compiled: CompiledGrammar) -> None:
        self._compiled, self._vocabulary = compiled, compiled.vocabulary
        self._matcher, self._spelled = compiled.matcher.deep_copy(), compiled.spelled.deep_copy()
        self._unspelled: list[int] = []  # symbols that `_spelled` has not been told yet
        self._way: list[int] | None = []  # tokens; None when none is known
        self._untried = 0  # tokens since the whole way was tried
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
        """Whether a way out is known."""
        return self._way is not None

    def begin(self, left: int) -> int | None:
        """Find the first way out; return its length if it is longer than `left` tokens."""
        self._way = self._compiled.text(left)
        return len(self._way) if self._way is not None and len(self._way) > left else None

    def begin_with(self, data: bytes, left: int) -> bool:
        """Take the first bytes; return whether the grammar allows them, and an end in `left` more tokens."""
        if not data:
            return self.begin(left) is None
        self._unspelled = self._vocabulary.alphabet.symbols(data)
        tokens = self._vocabulary.tokens(self._unspelled)
        if tokens is None or self._matcher.try_consume_tokens(tokens) < len(tokens):
            return False
        self._read(data)
        self._way = self._found([], left)
        return self._way is not None

    def allowed(self, ends: Iterable[int]) -> np.ndarray[Any, Any]:
        """Return a mask over the vocabulary: what may come next, the row's end tokens where the text may end."""
        size = self._vocabulary.size
        bits = np.zeros((size + 31) // 32, dtype=np.int32)
        self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        mask = np.unpackbits(bits.view(np.uint8), bitorder="little")[:size].view(np.bool_)
        if self._matcher.is_error():
            raise InvalidRequestError(self._complaint())
        ends = [end for end in ends if end < size]
        if self.complete:
            mask[self._vocabulary.ends] = False
            mask[ends] = True
        else:  # they may be text as well, which can be spelled, or what the grammar asks for
            spelled = mask.copy()
            spelled[ends] = False
            mask = spelled if spelled.any() else mask
        return mask

    def must_leave(self, left: int) -> int | None:
        """Return the way's first token if hardly anything else can have time; the way has been tried then."""
        return self.way_out(left) if self._way and len(self._way) >= left else None

    def can_be_read_with(self, *tokens: int) -> bool:
        """Whether the text, if it is JSON, can still be read by parsers with these tokens after it; see `Reading`."""
        if self._reading is None:
            return True
        return self._reading.after(b"".join(self._vocabulary.bytes[token] for token in tokens)) is not None

    def take(self, token: int, left: int) -> bool:
        """Go on with a token, unless the text could then not be ended in `left` tokens; return whether it was taken."""
        if not self._matcher.consume_token(token):
            raise InvalidRequestError(self._complaint())
        untried = self._untried
        way = self._way_after(token, left)
        if way is None and self._way is not None:
            self._matcher.rollback(1)
            self._untried = untried  # what was tried is not the way that is left
            return False
        self._way = way
        self._unspelled += self._vocabulary.symbols(token)
        self._read(self._vocabulary.bytes[token])
        return True

    def _read(self, data: bytes) -> None:
        if self._reading is not None:
            self._reading = self._reading.after(data)

    def way_out(self, left: int) -> int | None:
        """Return the first token of a way out that was tried; None when none is known, or none is needed."""
        if self._untried and not self._leads_out(self._way or []):
            self._way = self._found([], left) or self._found_by_searching(left)
        return self._way[0] if self._way else None

    def _way_after(self, token: int, left: int) -> list[int] | None:
        way = self._way
        if way is None:  # no use in looking at every step
            self._untried += 1
            return self._found([token], left) if self._untried % _OFTEN == 0 else None
        if way and way[0] == token:
            return way[1:]
        if len(way) <= left and self._still_leads_out(token, way, left):
            return way
        return self._found([token], left)

    def _still_leads_out(self, token: int, way: list[int], left: int) -> bool:
        plain = self._untried < _OFTEN and _TURNS.isdisjoint(self._vocabulary.bytes[token])
        if plain and left - len(way) > max(len(way), _SPARE):
            self._untried += 1
            soon = way[:_OFTEN]
            leads_on = self._matcher.validate_tokens(soon) == len(soon) if way else self.complete
            return leads_on and self.can_be_read_with(token, *soon)
        return self._leads_out(way) and self.can_be_read_with(token, *way)

    def _leads_out(self, way: list[int]) -> bool:
        taken = self._matcher.try_consume_tokens(way)
        leads_out = taken == len(way) and self.complete
        self._matcher.rollback(taken)
        if leads_out:
            self._untried = 0
        return leads_out

    def _found(self, tokens: Sequence[int], left: int) -> list[int] | None:
        """Look for a way out that begins after these tokens."""
        self._catch_up()
        taken = self._spelled.try_consume_tokens([each for token in tokens for each in self._vocabulary.symbols(token)])
        ending = quick_ending(self._compiled.alphabet, self._spelled, min(_SEARCHED, 8 * left + 64))
        self._spelled.rollback(taken)
        return self._way_of(ending, left, tokens)

    def _found_by_searching(self, left: int) -> list[int] | None:
        """Look harder for a way out from here."""
        self._catch_up()
        ending = shortest_ending(self._compiled.alphabet, self._spelled, min(_SEARCHED, 8 * left + 64))
        return self._way_of(ending, left, [])

    def _way_of(self, ending: list[int] | None, left: int, before: Sequence[int]) -> list[int] | None:
        self._untried = 0
        way = self._vocabulary.tokens(ending)
        return way if way is not None and len(way) <= left and self.can_be_read_with(*before, *way) else None

    def _catch_up(self) -> None:
        if self._unspelled:
            self._spelled.consume_tokens(self._unspelled)
            self._unspelled = []

    def _complaint(self) -> str:
        return f"the grammar cannot be followed any further: {self._matcher.get_error()}"
