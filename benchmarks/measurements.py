"""What is measured; each function yields lines of the table."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from langchain_community.llms import Petals as CommunityPetals

from benchmarks.comparison import Comparison, compare, seconds
from langchain_petals import Petals
from langchain_petals.engine.petals_compat import load_petals
from langchain_petals.swarm import LocalSwarm

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 128
PROMPT = "Human: Tell me a story.\nAI:"
BATCH = [f"Human: Count from {start} to {start + 9}, please{'!' * (start % 5)}\nAI:" for start in range(16)]
BATCH_TOKENS = 64
MEGABYTE = 2**20


def llm_on(swarm: LocalSwarm, **options: Any) -> Petals:
    return Petals(**swarm.connection, **({"temperature": 0, "max_new_tokens": TOKENS, "session_cache": 0} | options))


def drain(llm: Petals, prompt: str, **options: Any) -> None:
    """Stream an answer of as many tokens as there may be: end tokens do not count."""
    for _ in llm.stream(prompt, min_new_tokens=options.pop("max_new_tokens", TOKENS), **options):
        pass


def first_token(llm: Petals, prompt: str) -> float:
    """Return the seconds until the first piece of text."""
    started = time.perf_counter()
    stream = llm.stream(prompt)
    next(stream)
    taken = time.perf_counter() - started
    stream.close()
    return taken


def one_stream(swarm: LocalSwarm) -> Iterator[Comparison]:
    llm = llm_on(swarm)
    client = llm._get_client()
    model, ids = client.model, torch.tensor([client.encode(PROMPT)])
    hidden = torch.randn(1, 1, model.config.hidden_size)

    def petals_generate() -> None:
        model.generate(ids, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)

    def bare_steps() -> float:
        with torch.inference_mode(), model.inference_session(max_length=TOKENS + 1) as session:
            session.step(hidden)
            return seconds(lambda: [session.step(hidden) for _ in range(TOKENS)]) * 1000 / TOKENS

    def our_steps() -> float:
        stream = iter(llm._submit([PROMPT], llm._call_options(None, {"min_new_tokens": TOKENS}))[0])
        next(stream)
        return seconds(lambda: list(stream)) * 1000 / (TOKENS - 1)

    yield compare(
        f"a stream of {TOKENS} tokens",
        lambda: seconds(lambda: drain(llm, PROMPT)),
        "petals' model.generate",
        lambda: seconds(petals_generate),
        at_least=1.05,
    )
    yield compare(
        "time per token",
        our_steps,
        "petals' bare session.step",
        bare_steps,
        unit="ms/token",
        at_least=1 / 1.1,
    )


def large_vocabulary() -> Iterator[Comparison]:
    """A model with random weights, 128k tokens and hidden size 1,024: the head costs more than the blocks."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 - after petals' checks

    tiny = Path(LocalSwarm.bundled_model)
    with tempfile.TemporaryDirectory() as folder:
        config = LlamaConfig(
            vocab_size=128_000,
            hidden_size=1024,
            intermediate_size=2048,
            num_hidden_layers=2,
            num_attention_heads=8,
            max_position_embeddings=4096,
        )
        LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
        AutoTokenizer.from_pretrained(tiny).save_pretrained(folder)
        gc.collect()
        with LocalSwarm(folder) as swarm:
            llm = llm_on(swarm, max_new_tokens=1)
            client = llm._get_client()
            prompt = "x" * 1500
            ids = torch.tensor([client.encode(prompt)])
            yield compare(
                "first token of a 1,500-token prompt, 128k vocabulary",
                lambda: seconds(lambda: llm.invoke(prompt)),
                "petals' model.generate",
                lambda: seconds(lambda: client.model.generate(ids, max_new_tokens=1, do_sample=False)),
                at_least=5,
                rounds=3,
            )


def batches(swarm: LocalSwarm) -> Iterator[Comparison]:
    llm = llm_on(swarm, max_new_tokens=BATCH_TOKENS, model_kwargs={"min_new_tokens": BATCH_TOKENS})
    client = llm._get_client()
    community = CommunityPetals.model_construct(
        client=client.model,
        tokenizer=client.tokenizer,
        do_sample=False,
        temperature=1.0,
        top_p=1.0,
        max_new_tokens=BATCH_TOKENS,
        model_kwargs={"min_new_tokens": BATCH_TOKENS},
    )

    async def gather() -> None:
        await asyncio.gather(*(llm.ainvoke(prompt) for prompt in BATCH))

    def one_by_one() -> float:
        return seconds(lambda: [llm.invoke(prompt) for prompt in BATCH])

    name = f"16 prompts, {BATCH_TOKENS} tokens each"
    yield compare(
        f"{name}: batch",
        lambda: seconds(lambda: llm.batch(BATCH)),
        "one after the other",
        one_by_one,
        at_least=8,
        rounds=3,
    )
    yield compare(
        f"{name}: asyncio.gather",
        lambda: seconds(lambda: asyncio.run(gather())),
        "one after the other",
        one_by_one,
        at_least=6,
        rounds=3,
    )
    yield compare(
        f"{name}: batch",
        lambda: seconds(lambda: llm.batch(BATCH)),
        "langchain_community's Petals.batch",
        lambda: seconds(lambda: community.batch(BATCH)),
        at_least=8,
        rounds=2,
    )


def conversation(swarm: LocalSwarm, delay: float) -> Iterator[Comparison]:
    """Turn 10 of a conversation of 2,000 tokens: only what is new is sent, or everything again."""
    turn = "Human: " + "la " * 55 + "\nAI:"

    def tenth_turn(llm: Petals) -> float:
        llm._get_client().engine.pool.close()
        prompt = turn
        for _ in range(9):
            prompt += llm.invoke(prompt, max_new_tokens=24) + "\n" + turn
        return first_token(llm, prompt)

    kept, fresh = llm_on(swarm, session_cache=4, max_new_tokens=24), llm_on(swarm, max_new_tokens=24)
    yield compare(
        f"first token of turn 10 of 2,000 tokens, {delay * 1000:g} ms a hop",
        lambda: tenth_turn(kept),
        "the same without idle sessions",
        lambda: tenth_turn(fresh),
        at_least=None if delay else 10,
        rounds=3,
    )
    kept._get_client().engine.pool.close()


def killed_server() -> Iterator[Comparison]:
    """A server dies in mid-stream, while another one holds its blocks."""
    step_timeout = 30.0
    with LocalSwarm(replicas=2) as swarm:
        llm = llm_on(swarm, step_timeout=step_timeout)
        drain(llm, PROMPT)
        started = time.perf_counter()
        calm = "".join(llm.stream(PROMPT))
        unharmed = time.perf_counter() - started
        started, harmed = time.perf_counter(), ""
        for index, piece in enumerate(llm.stream(PROMPT)):
            harmed += piece
            if index == TOKENS // 2:
                for server in [server for server in swarm.servers if server.blocks.start == 0][:1]:
                    server.kill()
                for server in [server for server in swarm.servers if server.blocks.start > 0][:1]:
                    server.kill()
        with_kill = time.perf_counter() - started
    if harmed != calm:
        msg = f"a killed server changed the answer from {calm!r} to {harmed!r}"
        raise RuntimeError(msg)
    extra = max(with_kill - unharmed, 1e-3)
    yield Comparison(
        "a stream whose servers are killed: seconds lost, same tokens",
        "step_timeout + 2 s",
        extra,
        step_timeout + 2,
        "s",
        (step_timeout + 2) / extra,
        1.0,
    )


def memory(swarm: LocalSwarm) -> Iterator[Comparison]:
    llm, process = llm_on(swarm, max_new_tokens=4), psutil.Process()

    def after(calls: int) -> float:
        for _ in range(calls):
            llm.invoke(PROMPT)
        gc.collect()
        return process.memory_info().rss / MEGABYTE

    early = after(100)
    late = after(900)
    yield Comparison(
        "memory of the client after 1,000 calls", "after 100 calls", late, early, "MB", early / late, 1 / 1.02
    )


def open_sessions(swarm: LocalSwarm) -> int:
    """Return how many sessions a swarm's servers have open, by their own account."""
    llm = llm_on(swarm)
    api, blocks = load_petals(), llm._get_client().model.transformer.h
    held = 0
    for server in swarm.servers:
        peer = api.hivemind.PeerID.from_base58(server.peer_id)
        stub = api.handler.get_stub(blocks.sequence_manager.state.p2p, peer)
        block = f"{swarm.dht_prefix}.{server.blocks.start}"
        answer = api.worker.run_coroutine(stub.rpc_info(api.runtime_pb2.ExpertUID(uid=block), timeout=10))
        free = api.hivemind.MSGPackSerializer.loads(answer.serialized_info)["cache_tokens_available"]
        held += free != swarm.cache_tokens
    return held
