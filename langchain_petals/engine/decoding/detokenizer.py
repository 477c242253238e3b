"""From token ids to text, piece by piece: an incremental detokenizer and a stop-sequence matcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.tokenizer import Tokenizer

# The beginning of a character is searched for in this many tokens at the end of a prompt.
_LONGEST_CONTEXT = 32

# Most tokens that are held back as an unfinished character. A valid character has four at most; more are not text, and
# decoding all of them at each step would take longer and longer.
_LONGEST_WAIT = 64

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns tokens into text one by one; never releases half a character.

    Decode prompt and tokens together: the result is the text of the prompt, then the joined results of `add` and
    `flush`. (With a byte-fallback vocabulary this needs valid UTF-8. In front of invalid bytes, decoding them together
    changes characters that a stream has released already.) A piece ends with U+FFFD only if nothing else has come for
    a long time.

    A token's text can depend on the one before it (SentencePiece drops the space in front of the first). So each token
    is decoded together with those since the last boundary between characters; the first one, with the prompt's end.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = self._end_of(prompt)
        self._start = 0  # index where decoding starts: that of the last released piece
        self._done = len(self._ids)  # how many tokens are released
        self._released = self._decode(self._ids)

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """Return as few tokens at the end of a prompt as have text that does not begin inside a character."""
        tail: list[int] = []
        for start in range(len(prompt) - 1, max(-1, len(prompt) - 1 - _LONGEST_CONTEXT), -1):
            tail = list(prompt[start:])
            text = self._decode(tail)
            if text and not text.startswith(_UNFINISHED):
                break
        return tail

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def add(self, token: int) -> str:
        """Take a token; return the text that is now certain, which may be empty."""
        self._ids.append(token)
        text = self._decode(self._ids[self._start :])
        if text.endswith(_UNFINISHED):
            return self._give_up_waiting(text) if len(self._ids) - self._done > _LONGEST_WAIT else ""
        if text == self._released:
            # a special token has no text and is dropped; a token without text at the start may have some later
            if text or not self._decode([*self._ids[self._start :], token]):
                self._ids.pop()
            return ""
        return self._release(text, len(self._ids))

    def flush(self) -> str:
        """Return the text that is held back; an unfinished character becomes U+FFFD, as when all is decoded at once."""
        return self._release(self._decode(self._ids[self._start :]), len(self._ids))

    def _give_up_waiting(self, text: str) -> str:
        """Release all but the last tokens, which may be the beginning of a character."""
        for end in range(len(self._ids) - 1, len(self._ids) - 5, -1):
            before = self._decode(self._ids[self._start : end])
            if text == before + self._decode(self._ids[end:]):
                return self._release(before, end)
        return self._release(text, len(self._ids))

    def _release(self, text: str, end: int) -> str:
        """Return the new part of `text`, the text of the tokens up to `end`."""
        piece = text[len(self._released) :]
        if not text.startswith(self._released):
            # invalid bytes of a byte-fallback vocabulary; decoding released tokens with them changes the released text
            piece = self._decode(self._ids[self._done : end])
        self._start, self._done = self._done, end
        self._released = self._decode(self._ids[self._start : end])
        return piece


class StopMatcher:
    """Finds stop sequences, and holds back text that may be the beginning of one.

    The sequence that is complete first ends the text; of several that end on the same character it is the longest. So
    the answer does not depend on how the text is cut into pieces. No sequence may be empty.

    The beginnings of `markers` are held back, too; a complete one ends nothing.
    """

    def __init__(self, stop: Sequence[str], markers: Sequence[str] = ()) -> None:
        self._stop, self._held_back_for = tuple(stop), (*stop, *markers)
        self._longest = max(map(len, self._held_back_for), default=0)
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """Take more text; return what is certainly not part of a stop sequence, and the one that is complete, if any.

        Text after a stop sequence is dropped.
        """
        text, self._held = self._held + text, ""
        # the one that ends first; of those that end together the longest
        found = ((at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0)
        _, start, stop = min(found, default=(0, len(text), None))
        if stop is None:
            start = next(
                at for at in range(max(0, len(text) - self._longest), len(text) + 1) if self._begins(text[at:])
            )
            self._held = text[start:]
        return text[:start], stop

    def _begins(self, text: str) -> bool:
        return any(each.startswith(text) and each != text for each in self._held_back_for) or not text

    def flush(self) -> str:
        """Return the text that is held back, when the text has ended without a stop sequence."""
        text, self._held = self._held, ""
        return text
