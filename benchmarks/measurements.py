"""What is measured. Each function starts a swarm of its own where it needs one, and yields lines of the table."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import tempfile
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import psutil
from langchain_community.llms import Petals as CommunityPetals

from benchmarks.bench_swarm import BenchSwarm, bench_swarm
from benchmarks.client_costs import client_costs
from benchmarks.comparison import Comparison, at, bounded, faster, in_turn, overhead, seconds
from benchmarks.constrained_batches import constrained_batches
from benchmarks.constraints import constraints
from benchmarks.long_contexts import long_contexts
from benchmarks.petals_client import PetalsClient
from benchmarks.routes import large_swarms
from benchmarks.trips import trips
from benchmarks.workloads import save_random_model, step_time
from langchain_petals.engine import Request, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.effort import Effort
    from langchain_petals import Petals
    from langchain_petals.swarm import LocalServer

PROMPT = "Human: Count from 1 to 20.\nAI:"
TOKENS = 128
BATCH = [f"Human: Count from {start} to {start + 9}, please{'!' * (start % 5)}\nAI:" for start in range(16)]
BATCH_TOKENS = 64
LONG_PROMPT = "x" * 1500  # one token each
TURN_TOKENS = 200
QUESTION_TOKENS = 40
MEGABYTE = 2**20
DELAYED_TOKENS = 8  # at 100 ms a hop each takes 0.4 s


def fixed_length(tokens: int) -> dict[str, Any]:
    """Return options for an answer of exactly this many tokens, which suppress end tokens."""
    return {"max_new_tokens": tokens, "model_kwargs": {"min_new_tokens": tokens}}


def streams(effort: Effort) -> Iterator[Comparison]:
    """Compare one stream with petals' own client: with `generate`, and with the bare steps of a session."""
    for delay in effort.delays:
        tokens = TOKENS // 8 if delay else TOKENS
        name = f"one stream of {tokens} tokens{at(delay)}"
        with bench_swarm(hop_delay=delay) as bench, PetalsClient(bench.swarm) as petals:
            taken = in_turn(
                {"ours": _streaming(bench, tokens), "generate": _petals_generate(bench, petals, PROMPT, tokens)},
                rounds=effort.few if delay else effort.rounds,
            )
            yield faster(
                name, taken["ours"], "petals' model.generate", taken["generate"], at_least=None if delay else 1.05
            )
            if not delay:
                taken = in_turn({"ours": _our_steps(bench), "bare": _bare_steps(bench, petals)}, rounds=effort.rounds)
                yield overhead(
                    "time per token", taken["ours"], "bare session.step", taken["bare"], unit="ms", at_most=1.1
                )
            yield bench.sessions_left(name)


def _streaming(bench: BenchSwarm, tokens: int) -> Callable[[], float]:
    llm = bench.llm(**fixed_length(tokens))
    return lambda: seconds(lambda: list(llm.stream(PROMPT)))


def _petals_generate(bench: BenchSwarm, petals: PetalsClient, prompt: str, tokens: int) -> Callable[[], float]:
    ids = bench.engine.client.encode(prompt)
    return lambda: petals.generate_seconds(ids, tokens)


def _bare_steps(bench: BenchSwarm, petals: PetalsClient) -> Callable[[], float]:
    prompt = len(bench.engine.client.encode(PROMPT))
    return lambda: petals.step_milliseconds(prompt, TOKENS)


def _our_steps(bench: BenchSwarm) -> Callable[[], float]:
    sampling = Sampling(greedy=True, min_new_tokens=TOKENS)
    return step_time(bench.engine, Request(bench.engine.client.encode(PROMPT), TOKENS, sampling))


def large_vocabulary(effort: Effort) -> Iterator[Comparison]:
    """Compare the first token of a model whose output layer costs more than its blocks."""
    from transformers import AutoTokenizer  # noqa: PLC0415 - heavy

    tokenizer = AutoTokenizer.from_pretrained(str(files("langchain_petals.swarm") / "tiny"))
    with tempfile.TemporaryDirectory() as folder:
        save_random_model(folder, tokenizer, intermediate_size=1024)
        with bench_swarm(folder) as bench, PetalsClient(bench.swarm) as petals:
            llm = bench.llm(max_new_tokens=1)
            taken = in_turn(
                {
                    "ours": lambda: seconds(lambda: llm.invoke(LONG_PROMPT)),
                    "generate": _petals_generate(bench, petals, LONG_PROMPT, 1),
                },
                rounds=effort.few,
            )
            name = "first token of a 1,500-token prompt, 128k vocabulary, hidden size 1,024"
            yield faster(name, taken["ours"], "petals' model.generate", taken["generate"], at_least=5)
            yield bench.sessions_left(name)


def batches(effort: Effort) -> Iterator[Comparison]:
    """Compare many prompts at once with one after the other, and with langchain_community's class."""
    for delay in effort.delays:
        tokens = DELAYED_TOKENS if delay else BATCH_TOKENS
        name = f"{len(BATCH)} prompts, {tokens} tokens each{at(delay)}"
        with bench_swarm(hop_delay=delay) as bench, contextlib.ExitStack() as stack:
            llm = bench.llm(**fixed_length(tokens))
            works = {
                "batch": lambda llm=llm: seconds(lambda: llm.batch(BATCH)),
                "gather": lambda llm=llm: seconds(lambda: asyncio.run(_gather(llm))),
                "one by one": lambda llm=llm: seconds(lambda: [llm.invoke(prompt) for prompt in BATCH]),
            }
            if not delay:
                theirs = _community_llm(bench, stack.enter_context(PetalsClient(bench.swarm)), tokens)
                works["community"] = lambda theirs=theirs: seconds(lambda: theirs.batch(BATCH))
            taken = in_turn(works, rounds=1 if delay else effort.rounds, warm_up=not delay)
            one_by_one = "one after the other"
            wanted = (None, None) if delay else (8, 6)
            yield faster(f"{name}: batch", taken["batch"], one_by_one, taken["one by one"], at_least=wanted[0])
            yield faster(f"{name}: gather", taken["gather"], one_by_one, taken["one by one"], at_least=wanted[1])
            if not delay:
                against = "langchain_community's Petals.batch"
                yield faster(f"{name}: batch", taken["batch"], against, taken["community"], at_least=8)
            yield bench.sessions_left(name)


async def _gather(llm: Petals) -> None:
    await asyncio.gather(*(llm.ainvoke(prompt) for prompt in BATCH))


def _community_llm(bench: BenchSwarm, petals: PetalsClient, tokens: int) -> CommunityPetals:
    return CommunityPetals.model_construct(
        client=petals,
        tokenizer=bench.engine.client.tokenizer,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=tokens,
        model_kwargs={"min_new_tokens": tokens},
    )


def conversations(effort: Effort) -> Iterator[Comparison]:
    """Compare turn 10 of a conversation of 2,000 tokens with and without the session of turn 9."""
    question = "Human: ".ljust(QUESTION_TOKENS - 4, "?") + "\nAI:"
    answer = "a" * (TURN_TOKENS - QUESTION_TOKENS - 1) + "\n"
    nine_turns = (question + answer) * 9
    for delay in effort.delays:
        name = f"first token of turn 10 of 2,000 tokens{at(delay)}"
        with bench_swarm(hop_delay=delay) as bench:
            kept, fresh = bench.llm(session_cache=1, max_new_tokens=1), bench.llm(max_new_tokens=1)

            def in_a_kept_session(bench: BenchSwarm = bench, kept: Petals = kept) -> float:
                bench.engine.pool.clear()
                prompt = nine_turns + kept.invoke(nine_turns) + question
                return seconds(lambda: kept.invoke(prompt))

            def anew(fresh: Petals = fresh) -> float:
                return seconds(lambda: fresh.invoke(nine_turns + "a" + question))

            works: dict[str, Callable[[], float]] = {"kept": in_a_kept_session, "fresh": anew}
            taken = in_turn(works, rounds=effort.rounds)
            at_least = None if delay else 10
            yield faster(name, taken["kept"], "the same, session_cache=0", taken["fresh"], at_least=at_least)
            yield bench.sessions_left(f"{name}, one idle session in the pool")


def killed_servers(effort: Effort) -> Iterator[Comparison]:
    """Kill the servers that a stream uses; other servers hold their blocks."""
    del effort
    with bench_swarm(replicas=2) as bench:
        llm = bench.llm(**fixed_length(TOKENS))
        list(llm.stream(PROMPT))
        started = time.perf_counter()
        calm = list(llm.stream(PROMPT))
        unharmed = time.perf_counter() - started

        started, harmed = time.perf_counter(), []
        for index, piece in enumerate(llm.stream(PROMPT)):
            harmed.append(piece)
            if index in (TOKENS // 3, 2 * TOKENS // 3):
                _server_in_use(bench, first_blocks=index == TOKENS // 3).kill()
        lost = time.perf_counter() - started - unharmed
        name = f"one stream of {TOKENS} tokens, both its servers killed one after the other"
        different = sum(ours != wanted for ours, wanted in zip(harmed, calm, strict=False)) + abs(
            len(harmed) - len(calm)
        )
        yield bounded(f"{name}: pieces of text that differ", different, 0, unit="pieces")
        yield bounded(f"{name}: time lost (at most step_timeout + 2 s)", lost, llm.step_timeout + 2, unit="s")
        yield bench.sessions_left(name)


def _server_in_use(bench: BenchSwarm, *, first_blocks: bool) -> LocalServer:
    """Return the server of the only session that holds the first, or the other, blocks."""
    held = bench.held_tokens()
    return next(server for server in held if held[server] and (server.blocks.start == 0) == first_blocks)


def memory(effort: Effort) -> Iterator[Comparison]:
    """Compare the memory of the client's process after few and after many calls."""
    process = psutil.Process()
    early, late = effort.calls
    with bench_swarm() as bench:
        llm = bench.llm(**fixed_length(4))

        def after(calls: int) -> float:
            for _ in range(calls):
                llm.invoke(PROMPT)
            gc.collect()
            return process.memory_info().rss / MEGABYTE

        sizes = [after(early)], [after(late - early)]
        name = f"memory of the client after {late:,} calls"
        yield overhead(name, sizes[1], f"after {early:,}", sizes[0], unit="MB", at_most=1.02)
        yield bench.sessions_left(f"{late:,} calls")


def batch_window(effort: Effort) -> Iterator[Comparison]:
    """Measure how long the batch window delays a single request."""
    with bench_swarm() as bench:
        windowed, alone = bench.llm(max_new_tokens=1), bench.llm(max_new_tokens=1, batch_window=0)
        taken = in_turn(
            {
                "windowed": lambda: seconds(lambda: windowed.invoke(PROMPT)) * 1000,
                "alone": lambda: seconds(lambda: alone.invoke(PROMPT)) * 1000,
            },
            rounds=effort.rounds * 20,
        )
        more = statistics.median(
            longer - shorter for longer, shorter in zip(taken["windowed"], taken["alone"], strict=True)
        )
        name = f"batch_window of {windowed.batch_window:g} ms: what it adds to a single request"
        yield bounded(name, more, 2, unit="ms")
        yield bench.sessions_left("single requests")


MEASUREMENTS: dict[str, Callable[[Effort], Iterator[Comparison]]] = {
    "streams": streams,
    "trips": trips,
    "large-vocabulary": large_vocabulary,
    "batches": batches,
    "conversations": conversations,
    "killed-servers": killed_servers,
    "memory": memory,
    "batch-window": batch_window,
    "client-costs": client_costs,
    "constraints": constraints,
    "constrained-batches": constrained_batches,
    "long-contexts": long_contexts,
    "large-swarms": large_swarms,
}
