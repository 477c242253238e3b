"""The client's own time per token after a long context, without servers."""

from __future__ import annotations

from importlib.resources import files
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.comparison import Comparison, in_turn, overhead
from benchmarks.workloads import step_time
from langchain_petals.engine import Engine, Request, Sampling
from langchain_petals.engine.loading import LocalClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.effort import Effort

SHORT, LONG = 100, 8_000
TOKENS = 256
AT_MOST = 1.2  # 1 but for noise: a step takes less than half a millisecond


class InstantModel:
    """A model that answers at once, so that a step takes the client's own time only.

    Args:
        vocabulary: Number of tokens.
    """

    device = "cpu"
    config = SimpleNamespace()

    def __init__(self, vocabulary: int) -> None:
        logits = torch.randn(1, 1, vocabulary, generator=torch.Generator().manual_seed(0))
        self._answer = SimpleNamespace(logits=logits, past_key_values=None)

    def __call__(self, **_: Any) -> SimpleNamespace:
        """Return the same logits for any input."""
        return self._answer


def long_contexts(effort: Effort) -> Iterator[Comparison]:
    """Compare sampling and detokenizing after a long context with the same after a short one."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    tokenizer = AutoTokenizer.from_pretrained(str(files("langchain_petals.swarm") / "tiny"))
    model: Any = InstantModel(len(tokenizer))  # it cannot search beams, which nothing here does
    engine = Engine(LocalClient(model, tokenizer))
    # A step takes microseconds, so many rounds are needed to average the machine's noise.
    taken = in_turn({"long": _steps(engine, LONG), "short": _steps(engine, SHORT)}, rounds=20 * effort.rounds)
    name = f"the client's share of a token's time after {LONG:,} tokens of context"
    yield overhead(name, taken["long"], f"after {SHORT}", taken["short"], unit="ms/token", at_most=AT_MOST)


def _steps(engine: Engine, context: int) -> Callable[[], float]:
    sampling = Sampling(temperature=0.7, top_p=0.9, seed=0, min_new_tokens=TOKENS)
    return step_time(engine, Request([65] * context, TOKENS, sampling, stop=["\n\n"]))
