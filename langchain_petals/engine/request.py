"""Requests to the engine: token ids of a prompt, and how to continue them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from langchain_petals.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from langchain_petals.grammars import Constraint


@dataclass(frozen=True)
class Sampling:
    """How logits become a token; processors run in the order of transformers.

    Attributes:
        temperature: Divides the logits; unused when greedy.
        top_p: Keep the fewest tokens whose probabilities add up to this; 1 keeps all.
        top_k: Keep this many of the likeliest tokens; None keeps all.
        min_p: Keep tokens with at least this fraction of the highest probability; None keeps all.
        typical_p: Locally typical sampling (Meister et al., 2022); None turns it off.
        repetition_penalty: Divides positive logits of tokens that occurred (Keskar et al., 2019); 1 turns it off.
        no_repeat_ngram_size: No n-gram of this size may occur twice; 0 turns it off.
        bad_words_ids: Sequences of token ids that must not occur.
        min_new_tokens: No end token before this many new tokens.
        greedy: Take the likeliest token instead of drawing one.
        seed: Seed of this row, which other rows do not affect; None for a new seed each time.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    greedy: bool = False
    seed: int | None = None


@dataclass(frozen=True)
class Request:
    """A prompt and the options of its continuation, in token ids; `Settings` define how the engine runs it.

    Attributes:
        prompt_ids: Token ids of the prompt; at least one.
        max_new_tokens: Stop after this many new tokens; at least one.
        sampling: How to choose tokens.
        stop: Strings that end the generation and are not part of the output.
        end_tokens: Ids that end the generation, in addition to the model's own.
        timeout: Seconds from `submit` to the last token; None for no limit.
        top_logprobs: Report the log-probabilities of each token and of this many of the likeliest; None for no report.
        num_beams: If more than one, search with so many beams, not token by token; needs `constraint=None`.
        constraint: The grammars that the answer must follow.
        on_prefill: Called after each step that sent tokens of the prompt, on the engine's thread, with the numbers of
            prompt tokens sent so far and in all.

    Raises:
        InvalidRequestError: The prompt or the budget is empty, or beams and a constraint are combined.
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    end_tokens: tuple[int, ...] = ()
    timeout: float | None = None
    top_logprobs: int | None = None
    num_beams: int = 1
    constraint: Constraint | None = None
    on_prefill: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        """Check the request."""
        if not self.prompt_ids:
            msg = "a request's prompt has no tokens; give at least one"
            raise InvalidRequestError(msg)
        if self.max_new_tokens < 1:
            msg = f"max_new_tokens is {self.max_new_tokens}; ask for at least one"
            raise InvalidRequestError(msg)
        if self.num_beams > 1 and self.constraint is not None:
            msg = "beam search cannot apply a grammar; set num_beams=1, or remove json_schema, regex, grammar and tools"
            raise InvalidRequestError(msg)
