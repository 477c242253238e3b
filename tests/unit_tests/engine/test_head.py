"""The head gives the same logits however it is computed."""

from __future__ import annotations

import threading

import psutil
import pytest
import torch
from torch.nn import functional

from langchain_petals.engine import head
from langchain_petals.engine.head import Head

TOKENS, SIZE = 1_000, 64

of_rows = pytest.mark.parametrize("rows", [1, 2, 5, 6, 16])
of_ways = pytest.mark.parametrize("few", [0, head._FEW_PRODUCTS], ids=["all rows at once", "row by row"])
of_types = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return random numbers that stand apart: hidden states choose tokens clearly, in any type."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0])).to(dtype)


def exact(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return hidden.double() @ weights.double().T


@of_rows
@of_types
@of_ways
@torch.inference_mode()
def test_logits_are_the_product_to_the_precision_of_the_type(
    dtype: torch.dtype, rows: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "_FEW_PRODUCTS", few)
    hidden, weights = random(rows, SIZE, dtype=dtype), random(TOKENS, SIZE, dtype=dtype)
    logits = Head(weights).logits(hidden)
    assert (logits.dtype, logits.shape) == (torch.float32, (rows, TOKENS))
    precision = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    torch.testing.assert_close(logits.double(), exact(hidden, weights), rtol=precision, atol=20 * precision)


@of_rows
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.inference_mode()
def test_logits_of_a_narrow_head_are_rounded_to_its_type(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounding makes equals of the likeliest tokens at times, of which the first one is chosen."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    logits = Head(random(TOKENS, SIZE, dtype=dtype)).logits(random(rows, SIZE, dtype=dtype))
    assert torch.equal(logits, logits.to(dtype).float())


@of_rows
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT"])
@torch.inference_mode()
def test_a_processor_without_fast_narrow_types_computes_in_float32(
    dtype: torch.dtype, rows: int, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    hidden, weights = random(rows, SIZE), random(TOKENS, SIZE, dtype=dtype)
    logits = Head(weights).logits(hidden)
    torch.testing.assert_close(logits, functional.linear(hidden, weights.float()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("numbers", [1, 3 * SIZE, 7 * SIZE + 1, TOKENS * SIZE, 10 * TOKENS * SIZE])
@torch.inference_mode()
def test_the_size_of_the_parts_does_not_matter(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    hidden, weights = random(2, SIZE), random(100, SIZE, dtype=torch.bfloat16)
    monkeypatch.setattr(head, "_PART_NUMBERS", numbers)
    logits = Head(weights).logits(hidden)
    torch.testing.assert_close(logits, functional.linear(hidden, weights.float()), rtol=1e-5, atol=1e-4)


@of_types
@of_ways
@torch.inference_mode()
def test_each_row_chooses_what_it_chooses_alone(dtype: torch.dtype, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_FEW_PRODUCTS", few)
    hidden, computed = random(16, SIZE, dtype=dtype), Head(random(TOKENS, SIZE, dtype=dtype))
    alone = torch.cat([computed.logits(row[None]) for row in hidden])
    together = computed.logits(hidden)
    torch.testing.assert_close(together, alone, rtol=2**-7, atol=1e-4)
    assert torch.equal(together.argmax(-1), alone.argmax(-1))


@of_rows
@torch.inference_mode()
def test_rows_of_a_small_head_have_the_bits_that_they_have_alone(rows: int) -> None:
    hidden, computed = random(rows, SIZE), Head(random(TOKENS, SIZE))
    assert torch.equal(computed.logits(hidden), torch.cat([computed.logits(row[None]) for row in hidden]))


def test_rows_of_a_small_head_wake_no_other_thread() -> None:
    """Torch's threads keep their cores busy while they wait for more work; servers on the same machine need these."""
    hidden, computed = random(9, SIZE), Head(random(TOKENS, SIZE))
    process, started = psutil.Process(), list[int]()

    def work() -> None:  # torch starts other threads for each thread that needs them
        before = {each.id for each in process.threads()}
        with torch.inference_mode():
            computed.logits(hidden)
        started.extend({each.id for each in process.threads()} - before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not started


@of_rows
@torch.inference_mode()
def test_the_same_rows_have_the_same_logits_again(rows: int) -> None:
    hidden, weights = random(rows, SIZE), random(TOKENS, SIZE)
    first, second = Head(weights), Head(weights)
    assert torch.equal(first.logits(hidden), first.logits(hidden))
    assert torch.equal(first.logits(hidden), second.logits(hidden))
