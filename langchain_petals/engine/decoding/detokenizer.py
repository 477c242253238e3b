"""From token ids to text, piece by piece: an incremental detokenizer and a stop-sequence matcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.tokenizer import Tokenizer

# The last tokens of a prompt in which the beginning of a character is searched for.
_LONGEST_CONTEXT = 32

# Most tokens that are held back as an unfinished character. A valid character has four at most. More are not text, and
# the time for decoding all of them at each step would grow.
_LONGEST_WAIT = 64

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns tokens into text one by one; never releases half a character.

    The text of the prompt and the results of `add` and `flush` together equal the text of all tokens decoded at once.
    (With a byte-fallback vocabulary, this needs valid UTF-8: decoding valid bytes together with invalid bytes after
    them changes characters that are already released.) A piece ends with U+FFFD only if the tokens of `_LONGEST_WAIT`
    steps have not finished a character.

    A token's text can depend on the one before it (SentencePiece drops the space in front of the first). So each token
    is decoded together with the last released piece; the first token, with the end of the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = self._end_of(prompt)
        self._start = 0  # index where decoding starts: the first token of the last released piece
        self._done = len(self._ids)  # how many tokens are released
        self._released = self._decode(self._ids)

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """Return the shortest end of a prompt whose text does not begin inside a character."""
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
            # drop a special token, which has no text, or the bytes of SentencePiece's mark of a word, which lose it;
            # keep a token whose text appears with the next one
            if text:
                del self._ids[self._done :]
            elif not self._decode([*self._ids[self._start :], token]):
                self._ids.pop()
            return ""
        return self._release(text, len(self._ids))

    def flush(self) -> str:
        """Return the text that is held back; an unfinished character becomes U+FFFD, as in decoding all at once."""
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

    The first sequence that is complete ends the text. If several end on the same character, the longest counts. So the
    answer does not depend on how the text is cut into pieces. No sequence may be empty.

    The beginnings of `markers` are held back, too; a complete one ends nothing.
    """

    def __init__(self, stop: Sequence[str], markers: Sequence[str] = ()) -> None:
        self._stop, self._held_back_for = tuple(stop), (*stop, *markers)
        self._longest = max(map(len, self._held_back_for), default=0)
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """Take more text; return the text that is not part of a stop sequence, and the complete sequence, if any.

        Text after a stop sequence is dropped.
        """
        text, self._held = self._held + text, ""
        # the sequence that ends first; of several with the same end, the longest
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
