"""The client's own share of a token at real shapes: embedding, last norm and head, without servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from benchmarks.comparison import in_turn
from langchain_petals.engine.model_parts import Family, ModelParts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HIDDEN_SIZE = 8_192
VOCABULARIES = (32_000, 128_256)
ROWS = (1, 2, 4, 8, 12, 16)
TYPES = (torch.bfloat16, torch.float32, torch.float16)
_PETALS_PART = 16_384  # rows of the head that petals' own client converts at a time
_BLOCK = 1_024  # tokens of the head that have numbers of their own; the same ones follow them

Line = tuple[str, ...]
HEADER: Line = ("type", "vocabulary", "rows", "torch's product", "the client", "", "choices that differ")


def lines(
    rounds: int, threads: int, vocabularies: Sequence[int] = VOCABULARIES, rows: Sequence[int] = ROWS
) -> Iterator[Line]:
    """Yield a line for each type, vocabulary and number of rows.

    The time is that of the processor, and of several rounds in turn the shortest one counts, so that other load of the
    machine does not.
    """
    torch.set_num_threads(threads)
    for vocabulary in vocabularies:
        for dtype in TYPES:
            yield from _of_a_model(dtype, vocabulary, rows, rounds)


def _of_a_model(dtype: torch.dtype, vocabulary: int, rows: Sequence[int], rounds: int) -> Iterator[Line]:
    parts = _parts(dtype, vocabulary)
    head: Any = parts._head  # noqa: SLF001 - the same weights, for the plain product
    name = str(dtype).removeprefix("torch.")
    for count in rows:
        ids, hidden = torch.arange(count)[:, None], torch.randn(count, HIDDEN_SIZE).to(dtype)
        yield (name, *_figures(parts, ids, hidden, rounds))
        if dtype != torch.float32:
            head._is_converted = True  # noqa: SLF001 - as on a processor without AVX512
            yield (f"{name}, converted", *_figures(parts, ids, hidden, rounds))
            head._is_converted = False  # noqa: SLF001


def _figures(parts: ModelParts, ids: torch.Tensor, hidden: torch.Tensor, rounds: int) -> Line:
    head: Any = parts._head  # noqa: SLF001 - as above
    weights = head.weights
    found: dict[str, torch.Tensor] = {}

    def plain() -> None:
        if head._is_converted:  # noqa: SLF001 - as above
            wide = hidden.float()
            pieces = torch.split(weights, _PETALS_PART)
            found["plain"] = torch.cat([functional.linear(wide, piece.float()) for piece in pieces], -1)
        else:
            found["plain"] = functional.linear(hidden, weights)

    def ours() -> None:
        parts.embed(ids)
        found["ours"] = parts.logits(hidden)

    with torch.inference_mode():
        taken = in_turn({"plain": lambda: _busy(plain), "ours": lambda: _busy(ours)}, rounds=rounds)
        # without its norm, so that both multiply the same numbers
        logits = head.logits(hidden)
    differ = int((logits.argmax(-1) != found["plain"].argmax(-1)).sum())
    before, after = (min(taken[each]) * 1000 for each in ("plain", "ours"))
    shape = f"{parts.vocabulary_size:,}", str(len(ids))
    return *shape, f"{before:.0f} ms", f"{after:.0f} ms", f"{before / after:.1f} x", str(differ)


def _busy(work: Callable[[], None]) -> float:
    """Return the seconds for which some work keeps each thread busy."""
    started = time.process_time()
    work()
    return (time.process_time() - started) / torch.get_num_threads()


def _parts(dtype: torch.dtype, vocabulary: int) -> ModelParts:
    """Return the parts of a Llama model whose head is its table of embeddings, so that memory holds one of them."""
    table = torch.empty(vocabulary, HIDDEN_SIZE, dtype=dtype)
    block = torch.randn(_BLOCK, HIDDEN_SIZE).to(dtype)
    for start in range(0, vocabulary, _BLOCK):
        table[start : start + _BLOCK] = block[: vocabulary - start]
    tensors = {"model.embed_tokens.weight": table, "model.norm.weight": torch.ones(HIDDEN_SIZE, dtype=dtype)}
    config = {"num_hidden_layers": 1, "hidden_size": HIDDEN_SIZE, "tie_word_embeddings": True}
    return ModelParts(config, Family("embed_tokens", "norm", ("model.",), is_rms=True), tensors.get)
