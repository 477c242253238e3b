"""What was said in which tokens, so that a conversation's next prompt begins with exactly what is on the servers.

A model's answer need not consist of the tokens that its text would be encoded to, and a template may strip the
answer's white space. A prompt that is encoded anew then parts from the servers' session in the middle of the last
answer, and the session is of no use. So the tokens of recent answers are remembered, and a prompt that goes on after
one is encoded from there on only. That holds for an answer that the template tells in other words, too: tool calls are
parsed and written down again, with 12.50 as 12.5, or with an identifier that the model did not write.
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
class _Spoken:
    spellings: tuple[str, ...]
    ids: tuple[int, ...]  # prompt and answer


class TokenHistory:
    """The tokens of recent answers; what was not used for longest is forgotten.

    Args:
        most: How many answers to remember.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._spoken: OrderedDict[tuple[Segment, ...], _Spoken] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def remember(
        self,
        prompt: Sequence[Segment],
        prompt_ids: Sequence[int],
        answer: str,
        answer_ids: Sequence[int],
        *,
        retold: str = "",
    ) -> None:
        """Remember an answer.

        Args:
            prompt: The rendered prompt.
            prompt_ids: Its tokens.
            answer: What the model wrote, reasoning and tool calls included.
            answer_ids: Its tokens, without the one that ended it.
            retold: How the template writes the same answer; empty if that is not known.
        """
        spellings = (answer, retold) if retold.strip() else (answer,)
        with self._lock:
            key = tuple(join_segments(prompt))
            self._spoken[key] = _Spoken(spellings, (*prompt_ids, *answer_ids))
            self._spoken.move_to_end(key)
            while len(self._spoken) > self._most:
                self._spoken.popitem(last=False)

    def encode(self, prompt: Sequence[Segment], tokenizer: Tokenizer) -> list[int]:
        """Return a prompt's tokens, as many as possible of them remembered.

        Args:
            prompt: The rendered prompt.
            tokenizer: A transformers tokenizer, fast or slow.
        """
        segments = tuple(join_segments(prompt))
        with self._lock:
            best: tuple[_Spoken, tuple[Segment, ...]] | None = None
            for spoken_prompt, spoken in self._spoken.items():
                behind = after_prompt(segments, spoken_prompt)
                rests = (_after_answer(behind, spelling) for spelling in spoken.spellings)
                rest = next(filter(None, rests), ()) if behind else ()
                if rest and (best is None or len(spoken.ids) > len(best[0].ids)):
                    best = spoken, rest
        if best is None:
            return encode(segments, tokenizer)
        spoken, rest = best
        return [*spoken.ids, *encode(rest, tokenizer, continued=True)]


_histories: weakref.WeakKeyDictionary[Any, TokenHistory] = weakref.WeakKeyDictionary()
"""Kept here and not in the engine, which knows nothing of conversations; a history ends with its engine."""
_lock = threading.Lock()


def history_of(engine: Any) -> TokenHistory:
    """Return the history of an engine: all objects that share its sessions share it, too."""
    with _lock:
        return _histories.setdefault(engine, TokenHistory())


def after_prompt(segments: Sequence[Segment], prompt: Sequence[Segment]) -> tuple[Segment, ...]:
    """Return what follows on an earlier prompt, nothing if they differ; neighbours of one kind are joined in both."""
    *whole, last = prompt
    if len(segments) < len(prompt) or list(segments[: len(whole)]) != whole:
        return ()
    here, *rest = segments[len(whole) :]
    if here.trusted != last.trusted or not here.text.startswith(last.text):
        return ()
    cut = here.text[len(last.text) :]
    return (*((Segment(cut, trusted=here.trusted),) if cut else ()), *rest)


def _after_answer(segments: tuple[Segment, ...], answer: str) -> tuple[Segment, ...]:
    """Return what follows on an answer, white space around it apart; nothing if this is another answer."""
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
