"""Measures constrained rows that arrive together: by the fixed rule, and by the one that knows what steps cost.

Where servers are far, a row under a grammar is done sooner in a session of its own: what its grammar forces needs no
step. The fixed rule puts rows of similar length into one session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.bench_swarm import bench_swarm
from benchmarks.comparison import Comparison, faster, in_turn
from benchmarks.length_spread import RULES, learn, rules
from langchain_petals.engine import Request, Sampling
from langchain_petals.grammars import Constraint, json_grammar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.effort import Effort
    from langchain_petals.engine import Engine

ROWS = 16
TOKENS = 256
FIELDS = {
    "guest_name": {"type": "string", "minLength": 3, "maxLength": 12},
    "guest_age": {"type": "integer", "minimum": 18, "maximum": 120},
    "home_city": {"type": "string", "minLength": 3, "maxLength": 12},
    "room_number": {"type": "integer", "minimum": 1, "maximum": 999},
    "with_breakfast": {"type": "boolean"},
    "number_of_nights": {"type": "integer", "minimum": 1, "maximum": 30},
}
SCHEMA = {"type": "object", "properties": FIELDS, "required": list(FIELDS), "additionalProperties": False}
AT_LEAST = {0: 0.95, 0.025: 1.5, 0.1: 3.0}  # times as fast, by the delay of a hop


def requests(engine: Engine) -> list[Request]:
    """Return requests for objects that differ, since each row draws with its own seed."""
    constraint = Constraint(json_grammar(SCHEMA))
    prompts = [engine.client.encode(f"Human: Tell me about guest {number}.\nAI:") for number in range(ROWS)]
    return [Request(prompt, TOKENS, Sampling(seed=seed), constraint=constraint) for seed, prompt in enumerate(prompts)]


def constrained_batches(effort: Effort) -> Iterator[Comparison]:
    """Compare a batch of constrained rows with the same batch by the fixed rule."""
    for delay in effort.delays:
        with bench_swarm(hop_delay=delay) as bench:
            learn(bench.engine)
            works = rules(bench.engine, requests(bench.engine))
            taken = in_turn(works, rounds=1 if delay else effort.few, warm_up=not delay)
        fixed, measured = (taken[name] for name in RULES)
        name = f"{ROWS} objects of {len(FIELDS)} fields in one batch" + (f", {delay * 1000:g} ms a hop" * (delay > 0))
        yield faster(name, measured, "one session for all", fixed, at_least=AT_LEAST.get(delay, 0.95))
