"""A swarm gives the same tokens as transformers with the same weights."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from langchain_petals import Petals

if TYPE_CHECKING:
    from pathlib import Path

    from langchain_petals.swarm import LocalSwarm

PROMPTS = [
    "Human: Hello!\nAI:",
    "Human: Repeat after me: 你好，世界 🌍👩‍👩‍👧 e\u0301 नमस्ते\nAI:",
    "Human: Count from 1 to 20.\nAI:",
    "Who are you?",
    "q",
]
NEW_TOKENS = 48


@pytest.fixture(scope="module")
def local_model(tiny_folder: Path) -> Any:
    """The bundled model in this process."""
    return LlamaForCausalLM.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture(scope="module")
def expected(local_model: Any, tokenizer: Any) -> list[str]:
    """Greedy completions by `transformers` itself."""
    return [_generate(local_model, tokenizer, prompt) for prompt in PROMPTS]


def _generate(model: Any, tokenizer: Any, prompt: str, **options: Any) -> str:
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.inference_mode():
        output = model.generate(ids, max_new_tokens=NEW_TOKENS, **({"do_sample": False} | options))
    text: str = tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    return text


@pytest.fixture(scope="module")
def llm(swarm: LocalSwarm) -> Petals:
    return Petals(**swarm.connection, temperature=0, max_new_tokens=NEW_TOKENS)


def test_invoke_equals_transformers(llm: Petals, expected: list[str]) -> None:
    assert [llm.invoke(prompt) for prompt in PROMPTS] == expected


def test_joined_pieces_of_a_stream_equal_transformers(llm: Petals, expected: list[str]) -> None:
    for prompt, text in zip(PROMPTS, expected, strict=True):
        pieces = list(llm.stream(prompt))
        assert "".join(pieces) == text
        if text and "\N{REPLACEMENT CHARACTER}" not in text:
            assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


async def test_async_stream_equals_transformers(llm: Petals, expected: list[str]) -> None:
    for prompt, text in zip(PROMPTS, expected, strict=True):
        assert "".join([piece async for piece in llm.astream(prompt)]) == text


def test_prompts_of_unequal_length_in_one_batch_equal_transformers(llm: Petals, expected: list[str]) -> None:
    assert llm.batch(PROMPTS) == expected
    assert [row[0].text for row in llm.generate(PROMPTS).generations] == expected


async def test_gathered_calls_equal_transformers(llm: Petals, expected: list[str]) -> None:
    assert await asyncio.gather(*(llm.ainvoke(prompt) for prompt in PROMPTS)) == expected


def test_each_of_several_answers_is_the_greedy_one(llm: Petals, expected: list[str]) -> None:
    answers = llm.generate(PROMPTS[:2], n=3).generations
    assert [[answer.text for answer in row] for row in answers] == [[text] * 3 for text in expected[:2]]


def test_calls_of_sixteen_threads_equal_transformers(llm: Petals, expected: list[str]) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(llm.invoke, [PROMPTS[i % len(PROMPTS)] for i in range(16)]))
    assert answers == [expected[i % len(PROMPTS)] for i in range(16)]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.8},
        {"temperature": 1.3, "top_k": 7},
        {"temperature": 1.0, "top_p": 0.6},
        {"temperature": 1.1, "repetition_penalty": 1.4},
    ],
    ids=str,
)
def test_a_seeded_sample_equals_transformers(
    llm: Petals, local_model: Any, tokenizer: Any, options: dict[str, float]
) -> None:
    torch.manual_seed(7)
    wanted = _generate(local_model, tokenizer, "Who are you?", **({"do_sample": True, "top_k": 0} | options))
    assert llm.invoke("Who are you?", seed=7, **({"top_p": None} | options)) == wanted


def test_a_long_prompt_in_chunks_equals_transformers(swarm: LocalSwarm, local_model: Any, tokenizer: Any) -> None:
    prompt = "Human: " + "Repeat after me: blue. " * 40 + "\nAI:"
    sent: list[tuple[int, int]] = []
    llm = Petals(
        **swarm.connection,
        temperature=0,
        max_new_tokens=NEW_TOKENS,
        prefill_chunk_tokens=300,
        session_cache=0,
        on_prefill=lambda done, total: sent.append((done, total)),
    )
    assert llm.invoke(prompt) == _generate(local_model, tokenizer, prompt)
    length = len(tokenizer(prompt).input_ids)
    assert sent == [(min(done, length), length) for done in range(300, length + 300, 300)]


@pytest.mark.parametrize("cut", ["s", "a tiny", "language model", "y lan", " ", "\nI am", "🌍", "世", "👩‍👧"])
def test_text_ends_in_front_of_the_stop_sequence(llm: Petals, expected: list[str], cut: str) -> None:
    """Each token is a byte, so each stop sequence spans tokens, and some begin inside a character."""
    stop = [cut, "never there"]
    wanted = [whole.split(cut)[0] for whole in expected]
    answers = [row[0] for row in llm.generate(PROMPTS, stop=stop).generations]
    assert [answer.text for answer in answers] == wanted
    for answer, whole in zip(answers, expected, strict=True):
        if cut in whole:
            assert answer.generation_info["finish_reason"] == "stop"
    streamed = next((i for i, whole in enumerate(expected) if cut in whole), 0)
    assert "".join(llm.stream(PROMPTS[streamed], stop=stop)) == wanted[streamed]


def test_generation_ends_with_the_stop_sequence(llm: Petals) -> None:
    result = llm.generate(["Human: Count from 1 to 20.\nAI:"], stop=["3"])
    assert result.llm_output is not None
    assert result.llm_output["token_usage"]["completion_tokens"] < NEW_TOKENS / 2
