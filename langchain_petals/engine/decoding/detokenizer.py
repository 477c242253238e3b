"""Token ids to text, piece by piece: an incremental detokenizer and a stop-sequence matcher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

# Tokens of a prompt among which the beginning of a character is looked for.
_LONGEST_CONTEXT = 32

# Tokens that may wait for the end of a character. Of a valid one at most four do: what goes on is no text, and decoding
# all of it at every step would take longer and longer.
_LONGEST_WAIT = 64

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns tokens into text as they come; never releases half a character.

    The pieces of `add`, and the last one of `flush`, joined, equal what decoding prompt and tokens in one go gives
    after the text of the prompt. (With a byte-fallback vocabulary that holds for valid UTF-8; for a run of bytes that
    is *not*, the one-shot decoder takes back characters that came before it, which no stream can.) A piece ends with
    U+FFFD only where nothing else has come for a long time.

    A token's text can depend on the one before it (SentencePiece drops the space in front of the first), so a token
    is decoded together with the ones since the last boundary of characters.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: The tokens before the first one; its end decides about the first token's leading space.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = self._end_of(prompt)
        self._start = 0  # where decoding starts: one released piece back
        self._done = len(self._ids)  # tokens before this one are released
        self._released = self._decode(self._ids)

    def _end_of(self, prompt: Sequence[int]) -> list[int]:
        """Return the last tokens that have a text of their own: not nothing, and not from within a character."""
        tail: list[int] = []
        for start in range(len(prompt) - 1, max(-1, len(prompt) - 1 - _LONGEST_CONTEXT), -1):
            tail = list(prompt[start:])
            text = self._decode(tail)
            if text and not text.startswith(_UNFINISHED):
                break
        return tail

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def add(self, token: int) -> str:
        """Take one more token; return the text that is now certain, perhaps none."""
        self._ids.append(token)
        text = self._decode(self._ids[self._start :])
        if text.endswith(_UNFINISHED):
            return self._give_up_waiting(text) if len(self._ids) - self._done > _LONGEST_WAIT else ""
        if text == self._released:
            # a special token has no text, and no part in that of others; a mark that has none at the start may have
            if text or not self._decode([*self._ids[self._start :], token]):
                self._ids.pop()
            return ""
        return self._release(text, len(self._ids))

    def flush(self) -> str:
        """Return what is held back: an unfinished character shows as U+FFFD, as in one-shot decoding."""
        return self._release(self._decode(self._ids[self._start :]), len(self._ids))

    def _give_up_waiting(self, text: str) -> str:
        """Release what is the same whatever comes next: all but the last tokens, in which a character may be begun."""
        for end in range(len(self._ids) - 1, len(self._ids) - 5, -1):
            before = self._decode(self._ids[self._start : end])
            if text == before + self._decode(self._ids[end:]):
                return self._release(before, end)
        return self._release(text, len(self._ids))

    def _release(self, text: str, end: int) -> str:
        """Return what `text`, which the tokens up to `end` have, adds to what was released."""
        piece = text[len(self._released) :]
        if not text.startswith(self._released):
            # fallback bytes that make no character; decoded together with released ones they spoil these too
            piece = self._decode(self._ids[self._done : end])
        self._start, self._done = self._done, end
        self._released = self._decode(self._ids[self._start : end])
        return piece


class StopMatcher:
    """Holds back text that may be the beginning of a stop sequence, and tells when one is complete.

    The sequence that is complete first, character by character, ends the text (of several that end on the same
    character the longest), so the answer does not depend on how the text was cut into pieces.

    Args:
        stop: The stop sequences; none may be empty.
        markers: What is held back in the same way while it is not complete, but ends nothing.
    """

    def __init__(self, stop: Sequence[str], markers: Sequence[str] = ()) -> None:
        self._stop, self._held_back_for = tuple(stop), (*stop, *markers)
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """Take more text.

        Returns:
            The text that is certain not to be part of a stop sequence, and the stop sequence that was completed, if
            any; the text after it is dropped.
        """
        self._held += text
        # the first to end wins; among those that end together the one that starts first
        found = min(
            ((at + len(stop), at, stop) for stop in self._stop if (at := self._held.find(stop)) >= 0),
            default=None,
        )
        if found is not None:
            _, start, stop = found
            text, self._held = self._held[:start], ""
            return text, stop
        keep = self._held_back()
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text, None

    def _held_back(self) -> int:
        longest = 0
        for stop in self._held_back_for:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def flush(self) -> str:
        """Return what was held back: the text ended without the rest of a stop sequence."""
        text, self._held = self._held, ""
        return text
