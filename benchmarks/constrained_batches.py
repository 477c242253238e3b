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

ROWS = 16
TOKENS = 256
FIELDS = ("first_name", "family_name", "street_and_number", "postal_code", "telephone_number", "date_of_birth")
SCHEMA = {
    "type": "object",
    "properties": {field: {"enum": ["known", "unknown"]} for field in FIELDS},
    "required": list(FIELDS),
    "additionalProperties": False,
}
AT_LEAST = {0: 0.95, 0.025: 1.5, 0.1: 3.0}  # times as fast, by the delay of a hop


def constrained_batches(effort: Effort) -> Iterator[Comparison]:
    """Compare a batch of constrained rows with the same batch by the fixed rule."""
    for delay in effort.delays:
        with bench_swarm(hop_delay=delay) as bench:
            learn(bench.engine)
            constraint, sampling = Constraint(json_grammar(SCHEMA)), Sampling(greedy=True)
            prompts = [f"Human: Tell me about person {number}.\nAI:" for number in range(ROWS)]
            encode = bench.engine.client.encode
            requests = [Request(encode(prompt), TOKENS, sampling, constraint=constraint) for prompt in prompts]
            taken = in_turn(rules(bench.engine, requests), rounds=effort.few)
        fixed, measured = (taken[name] for name in RULES)
        name = f"{ROWS} objects of {len(FIELDS)} fields in one batch" + (f", {delay * 1000:g} ms a hop" * (delay > 0))
        yield faster(name, measured, "one session for all", fixed, at_least=AT_LEAST.get(delay, 0.95))
