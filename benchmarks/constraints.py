"""The cost of a grammar: per token, with the bundled model and with a vocabulary of 128k tokens, and to compile."""

from __future__ import annotations

import random
import tempfile
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from benchmarks.bench_swarm import bench_swarm
from benchmarks.comparison import Comparison, in_turn, overhead, seconds
from benchmarks.workloads import LARGE_VOCABULARY, save_random_model, step_time
from langchain_petals.chat.tools import HERMES
from langchain_petals.engine import Request, Sampling
from langchain_petals.engine.constraints import Grammars
from langchain_petals.grammars import Constraint, json_grammar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedTokenizerFast

    from benchmarks.bench_swarm import BenchSwarm
    from benchmarks.effort import Effort

PROMPT = "Human: Who was there?\nAI:"
TOKENS = 128
AT_MOST = 1.05

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 4},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["friend", "family", "colleague"]}},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
PEOPLE = {"type": "array", "items": PERSON, "minItems": 3}


def constraints(effort: Effort) -> Iterator[Comparison]:
    """Compare constrained tokens with free ones, on the same swarm."""
    with bench_swarm() as bench:
        # The difference is about two percent, so more rounds are needed to average the machine's noise.
        yield _per_token(bench, "time per token under a JSON schema", 3 * effort.rounds)
    tokenizer = large_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(folder, tokenizer, intermediate_size=2048)
        with bench_swarm(folder) as bench:
            name = "time per token under a JSON schema, 128k vocabulary, hidden size 1,024"
            yield _per_token(bench, name, effort.few)
    yield from _compilation(tokenizer, effort.few)


def _per_token(bench: BenchSwarm, name: str, rounds: int) -> Comparison:
    constrained = _steps(bench, Constraint(json_grammar(PEOPLE)))
    taken = in_turn({"ours": constrained, "free": _steps(bench, None)}, rounds=rounds)
    return overhead(name, taken["ours"], "without one", taken["free"], unit="ms/token", at_most=AT_MOST)


def _steps(bench: BenchSwarm, constraint: Constraint | None) -> Callable[[], float]:
    sampling = Sampling(greedy=True, min_new_tokens=0 if constraint else TOKENS)
    request = Request(bench.engine.client.encode(PROMPT), TOKENS, sampling, constraint=constraint)
    return step_time(bench.engine, request)


def _compilation(tokenizer: PreTrainedTokenizerFast, rounds: int) -> Iterator[Comparison]:
    tools = [{"type": "function", "function": {"name": f"tool_{i}", "parameters": PERSON}} for i in range(5)]
    constraint = HERMES.constraint(tools)

    def compiled_first() -> float:
        return seconds(lambda: Grammars(tokenizer).guide(constraint, []))

    known = Grammars(tokenizer)
    numbers = iter(range(rounds + 2))

    def compiled() -> float:
        number = next(numbers)
        known.guide(Constraint(json_grammar({"const": number})), [])
        fresh = HERMES.constraint([*tools, {"type": "function", "function": {"name": f"tool_{number + 100}"}}])
        return seconds(lambda: known.guide(fresh, []))

    taken = in_turn({"first": compiled_first, "later": compiled}, rounds=rounds)
    for name, against in (("first", "the first grammar, with the vocabulary"), ("later", "each one after it")):
        values = sorted(taken[name])
        yield Comparison(
            f"tools compiled to a grammar, 128k vocabulary: {against}",
            "reported",
            values[len(values) // 2],
            0.0,
            "s",
            None,
        )


def large_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 128k tokens, made of random merges of letters."""
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - heavy

    dice = random.Random(0)
    vocabulary = {each: number for number, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pieces = [*"abcdefghijklmnopqrstuvwxyz", *'"{}[]:,.0123456789']
    merges = []
    while len(vocabulary) < LARGE_VOCABULARY - 1:
        left = "Ġ" if dice.random() < 0.2 else dice.choice(pieces)  # a space
        right = dice.choice(pieces)
        merged = left + right
        if len(merged) <= 10 and merged not in vocabulary and not right.startswith("Ġ"):
            merges.append((left, right))
            pieces.append(merged)
            vocabulary[merged] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")  # noqa: S106 - no secret
