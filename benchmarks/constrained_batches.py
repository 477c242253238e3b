"""Measures constrained rows that arrive together: by the fixed rule, and by the one that knows what steps cost.

Where servers are far, a row under a grammar is done sooner in a session of its own: what its grammar forces needs no
step. The fixed rule puts rows of similar length into one session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.bench_swarm import bench_swarm
from benchmarks.comparison import Comparison, at, faster, in_turn
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
LABELS = {
    "sentiment": {"enum": ["positive", "negative", "neutral"]},
    "subject": {"enum": ["room", "breakfast", "staff", "location", "price"]},
}
REVIEW = "The room was fine, but the staff forgot my breakfast twice, and the price is high."
AT_LEAST = 0.95  # as fast as the fixed rule, but for noise
LABELS_AT_LEAST = {0.1: 3.0}  # times as fast, by the delay of a hop


def objects(engine: Engine) -> list[Request]:
    """Return requests for objects that differ, since each row draws with its own seed; prompts have one length."""
    return _requests(engine, FIELDS, [f"Human: Tell me about guest {number:02}.\nAI:" for number in range(ROWS)])


def labels(engine: Engine) -> list[Request]:
    """Return requests for the labels of texts whose lengths differ by up to 30 tokens."""
    texts = [REVIEW[: len(REVIEW) - 2 * number] for number in range(ROWS)]
    return _requests(engine, LABELS, [f"Human: Sort this review: {text}\nAI:" for text in texts])


def _requests(engine: Engine, fields: dict[str, Any], prompts: list[str]) -> list[Request]:
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    constraint = Constraint(json_grammar(schema))
    return [
        Request(engine.client.encode(prompt), TOKENS, Sampling(seed=seed), constraint=constraint)
        for seed, prompt in enumerate(prompts)
    ]


def constrained_batches(effort: Effort) -> Iterator[Comparison]:
    """Compare batches of constrained rows with the same batches by the fixed rule."""
    for delay in effort.delays:
        with bench_swarm(hop_delay=delay) as bench:
            learn(bench.engine)
            works = {"objects": objects(bench.engine), "labels": labels(bench.engine)}
            taken = {
                name: in_turn(rules(bench.engine, work), rounds=1 if delay else effort.few, warm_up=not delay)
                for name, work in works.items()
            }
        names = {
            "objects": (f"{ROWS} objects of {len(FIELDS)} fields in one batch", AT_LEAST),
            "labels": (f"labels of {ROWS} texts in one batch", LABELS_AT_LEAST.get(delay, AT_LEAST)),
        }
        for work, (name, target) in names.items():
            fixed, measured = (taken[work][rule] for rule in RULES)
            yield faster(name + at(delay), measured, "the fixed rule", fixed, at_least=target)
