"""What a token costs this process, apart from the servers, where much text comes before it."""

from __future__ import annotations

from importlib.resources import files
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.comparison import Comparison, in_turn, overhead, seconds
from langchain_petals.engine import Engine, Request, Sampling, Settings
from langchain_petals.engine.loading import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.effort import Effort

SHORT, LONG = 100, 8_000
TOKENS = 256
AT_MOST = 1.2  # 1 but for noise: a step takes less than half a millisecond


class InstantModel:
    """A model that answers at once, whatever the text: nothing is left of a step but the client's share.

    Args:
        vocabulary: How many tokens there are.
    """

    device = "cpu"
    config = SimpleNamespace()

    def __init__(self, vocabulary: int) -> None:
        logits = torch.randn(1, 1, vocabulary, generator=torch.Generator().manual_seed(0))
        self._answer = SimpleNamespace(logits=logits, past_key_values=None)

    def __call__(self, **_: Any) -> SimpleNamespace:
        """Return logits, always the same."""
        return self._answer


def long_contexts(effort: Effort) -> Iterator[Comparison]:
    """Choosing tokens and making text of them after a long text, against the same after a short one."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - after petals' checks

    tokenizer = AutoTokenizer.from_pretrained(str(files("langchain_petals.swarm") / "tiny"))
    engine = Engine(Client(InstantModel(len(tokenizer)), tokenizer))
    # a matter of microseconds: many rounds, so that the noise of a shared machine does not decide
    taken = in_turn({"long": _steps(engine, LONG), "short": _steps(engine, SHORT)}, rounds=20 * effort.rounds)
    name = f"the client's share of a token's time after {LONG:,} tokens of context"
    yield overhead(name, taken["long"], f"after {SHORT}", taken["short"], unit="ms/token", at_most=AT_MOST)


def _steps(engine: Engine, context: int) -> Callable[[], float]:
    """Return what measures the milliseconds for each token after the first."""
    sampling = Sampling(temperature=0.7, top_p=0.9, seed=0, min_new_tokens=TOKENS)
    request = Request([65] * context, TOKENS, sampling, stop=["\n\n"])

    def measure() -> float:
        stream = iter(engine.submit([request], Settings(session_cache=0))[0])
        next(stream)
        steps = 0

        def rest() -> None:
            nonlocal steps
            steps = sum(1 for _ in stream)

        return seconds(rest) * 1000 / steps

    return measure
