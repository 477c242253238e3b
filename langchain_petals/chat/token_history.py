"""Remembers the tokens of answers, so that the next prompt of a conversation begins with the tokens on the servers.

The tokens of a model's answer may differ from those of its encoded text, and a template may strip the answer's white
space. A prompt that is encoded anew would then differ from the servers' session in the middle of the last answer, and
the session could not be reused. So the tokens of recent answers are kept, and a prompt that continues one is encoded
from there on only. Tool calls may differ, too: they are parsed and written again, with 12.50 as 12.5, for instance.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.templates import Segment, encode, join_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.tokenizer import Tokenizer


class TokenHistory:
    """The tokens of recent answers; the oldest answers are forgotten first."""

    def __init__(self, most: int = 64) -> None:
        # by prompt: the spellings of its answer, and the tokens of prompt and answer
        self._answers: OrderedDict[tuple[Segment, ...], tuple[tuple[str, ...], tuple[int, ...]]] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def remember(
        self,
        prompt: Sequence[Segment],
        prompt_ids: Sequence[int],
        answer: str,
        answer_ids: Sequence[int],
        *,
        respelled: str = "",
    ) -> None:
        """Remember an answer: its text, its tokens without an end token, its text in later prompts (`respelled`)."""
        spellings = (answer, respelled) if respelled.strip() else (answer,)
        with self._lock:
            key = tuple(join_segments(prompt))
            self._answers[key] = spellings, (*prompt_ids, *answer_ids)
            self._answers.move_to_end(key)
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def encode(self, prompt: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
        """Return a prompt's tokens; they begin with as many remembered tokens as possible."""
        segments = join_segments(prompt)
        known: tuple[int, ...] = ()
        rest = segments
        with self._lock:
            for answered, (spellings, ids) in self._answers.items():
                later = after_prompt(segments, answered)
                rests = (_after_answer(later, spelling) for spelling in spellings)
                if len(ids) > len(known) and later and (after := next(filter(None, rests), None)):
                    known, rest = ids, after
        return [*known, *encode(rest, tokenizer, continued=bool(known))]


_histories: weakref.WeakKeyDictionary[Any, TokenHistory] = weakref.WeakKeyDictionary()
"""Not an attribute of the engine, which knows nothing of conversations. A history ends with its engine."""
_lock = threading.Lock()


def _begin_child() -> None:
    """Renew the lock, in the child of a fork: another thread of the parent may have held it."""
    global _lock  # noqa: PLW0603 - of the module, like what it guards
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_child)


def history_of(engine: Any) -> TokenHistory:
    """Return the history of an engine, which is shared like the engine's sessions."""
    with _lock:
        return _histories.setdefault(engine, TokenHistory())


def after_prompt(segments: Sequence[Segment], prompt: Sequence[Segment]) -> list[Segment]:
    """Return the segments after an earlier prompt; none if they do not begin with it. Both must be joined segments."""
    *whole, last = prompt
    here = segments[len(whole)] if len(segments) >= len(prompt) else None
    if here is None or here.trusted != last.trusted or not here.text.startswith(last.text):
        return []
    return _after(len(last.text), segments[len(whole) :]) if list(segments[: len(whole)]) == whole else []


def _after_answer(segments: Sequence[Segment], answer: str) -> list[Segment]:
    """Return the segments after an answer; none if they do not begin with it. White space around it is ignored."""
    text = "".join(segment.text for segment in segments)
    start, wanted = len(text) - len(text.lstrip()), answer.strip()
    return _after(start + len(wanted), segments) if text.startswith(wanted, start) else []


def _after(characters: int, segments: Sequence[Segment]) -> list[Segment]:
    """Return segments without this number of characters at the beginning."""
    rest = []
    for segment in segments:
        rest.append(Segment(segment.text[characters:], trusted=segment.trusted))
        characters = max(0, characters - len(segment.text))
    return join_segments(rest)
