"""Remembers the tokens of answers, so that the next prompt of a conversation begins with the tokens on the servers.

The tokens of a model's answer may differ from those of its encoded text, and a template may strip the answer's white
space. A prompt that is encoded anew would then differ from the servers' session in the middle of the last answer, and
the session could not be reused. So the tokens of recent answers are kept, and a prompt that continues one is encoded
from there on only. This includes answers that the template spells in another way: tool calls are parsed and written
again, with 12.50 as 12.5, or with an identifier that the model did not write.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from langchain_petals.chat.templates import Segment, encode, join_segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_petals.tokenizer import Tokenizer

_MOST = 64


@dataclass(frozen=True)
class _Answer:
    spellings: tuple[str, ...]
    ids: tuple[int, ...]  # of prompt and answer


class TokenHistory:
    """The tokens of recent answers; the oldest answers are forgotten first.

    Args:
        most: How many answers to remember.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._answers: OrderedDict[tuple[Segment, ...], _Answer] = OrderedDict()
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
        """Remember an answer.

        Args:
            prompt: The rendered prompt.
            prompt_ids: Its tokens.
            answer: The text that the model wrote, with reasoning and tool calls.
            answer_ids: Its tokens, without the one that ended it.
            respelled: The answer as the template writes it; empty if unknown.
        """
        spellings = (answer, respelled) if respelled.strip() else (answer,)
        with self._lock:
            key = tuple(join_segments(prompt))
            self._answers[key] = _Answer(spellings, (*prompt_ids, *answer_ids))
            self._answers.move_to_end(key)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)

    def encode(self, prompt: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
        """Return a prompt's tokens; they begin with as many remembered tokens as possible.

        Args:
            prompt: The rendered prompt.
            tokenizer: A transformers tokenizer, fast or slow.
        """
        segments = tuple(join_segments(prompt))
        with self._lock:
            best: tuple[_Answer, tuple[Segment, ...]] | None = None
            for answered, answer in self._answers.items():
                later = after_prompt(segments, answered)
                rests = (_after_answer(later, spelling) for spelling in answer.spellings)
                rest = next(filter(None, rests), ()) if later else ()
                if rest and (best is None or len(answer.ids) > len(best[0].ids)):
                    best = answer, rest
        if best is None:
            return encode(segments, tokenizer)
        answer, rest = best
        return [*answer.ids, *encode(rest, tokenizer, continued=True)]


_histories: weakref.WeakKeyDictionary[Any, TokenHistory] = weakref.WeakKeyDictionary()
"""Not an attribute of the engine, which knows nothing of conversations. A history ends with its engine."""
_lock = threading.Lock()


def history_of(engine: Any) -> TokenHistory:
    """Return the history of an engine, which is shared like the engine's sessions."""
    with _lock:
        return _histories.setdefault(engine, TokenHistory())


def after_prompt(segments: Sequence[Segment], prompt: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return the segments after an earlier prompt, none if they differ; neighbours have to be joined in both."""
    *whole, last = prompt
    if len(segments) < len(prompt) or list(segments[: len(whole)]) != whole:
        return ()
    here, *rest = segments[len(whole) :]
    if here.trusted != last.trusted or not here.text.startswith(last.text):
        return ()
    cut = here.text[len(last.text) :]
    return (*((Segment(cut, trusted=here.trusted),) if cut else ()), *rest)


def _after_answer(segments: tuple[Segment, ...], answer: str) -> tuple[Segment, ...]:
    """Return the segments after an answer, none if they begin otherwise; white space around the answer is ignored."""
    wanted = answer.strip()
    first = True
    for index, segment in enumerate(segments):
        text = segment.text.lstrip() if first else segment.text
        first = first and not text
        if len(text) >= len(wanted):
            if not text.startswith(wanted):
                return ()
            rest = text[len(wanted) :]
            return (*((Segment(rest, trusted=segment.trusted),) if rest else ()), *segments[index + 1 :])
        if not wanted.startswith(text):
            return ()
        wanted = wanted[len(text) :]
    return ()
