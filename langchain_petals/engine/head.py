"""The head of a model: the product of hidden states and the largest matrix that this process has.

It is most of the client's own time per token. Which way of computing it is the fastest depends on the type, the number
of rows and the processor, but each way is fixed by these: the same process gives the same logits for the same rows.
"""

from __future__ import annotations

import torch
from torch.nn import functional

_NARROW = frozenset({torch.bfloat16, torch.float16})
# Numbers of the head that are converted to float32 at a time: 8 MiB stay in a processor's cache, so that the head is
# read from memory once, in its own type.
_PART_NUMBERS = 2**21
# Products (rows times numbers of the head) up to which float32 is multiplied row by row, which one thread does in some
# milliseconds. A product of several rows wakes torch's other threads, and these keep their cores busy long after it.
_FEW_PRODUCTS = 2**23
_MANY_ROWS = 6  # from which on converting float16 takes less time than multiplying it without instructions for it


class Head:
    """Makes logits of hidden states.

    Where petals' own client multiplies in a narrow type, and rounds the logits to it, so does this class; where petals
    converts to float32, because the processor has no fast instructions for narrow types, it does the same, too.

    Args:
        weights: Shape (vocabulary, hidden size). They are used as they are: nothing is copied or packed.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights = weights
        capability = torch.backends.cpu.get_cpu_capability()
        self._on_cpu = on_cpu = weights.device.type == "cpu"
        is_narrow = weights.dtype in _NARROW
        self._is_converted = on_cpu and is_narrow and "AVX512" not in capability
        self._converts_many = on_cpu and weights.dtype == torch.float16 and not _multiplies_float16()
        self._has_onednn = on_cpu and "AVX" in capability and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of hidden states.

        Args:
            hidden: Shape (rows, hidden size).

        Returns:
            Shape (rows, vocabulary), float32, on the CPU.
        """
        if self._is_converted:
            return self._in_float32(hidden)
        narrow = hidden.to(self.weights.dtype)
        if self._converts_many and len(hidden) >= _MANY_ROWS:
            return self._in_float32(narrow).to(narrow.dtype).float()
        if narrow.dtype == torch.float32 and self._on_cpu:
            return self._of_float32(narrow)
        return functional.linear(narrow, self.weights).float().cpu()

    def _of_float32(self, hidden: torch.Tensor) -> torch.Tensor:
        if len(hidden) * self.weights.numel() <= _FEW_PRODUCTS:
            return torch.cat([functional.linear(row, self.weights) for row in hidden[:, None]])
        # Torch's own product takes one row on one core, and packs the weights anew for more rows. oneDNN reads them as
        # they lie in memory, on all cores.
        if self._has_onednn:
            return functional.linear(hidden.to_mkldnn(), self.weights).to_dense()
        return functional.linear(hidden, self.weights)

    def _in_float32(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.float()
        tokens, size = self.weights.shape
        logits = torch.empty(len(hidden), tokens)
        part = torch.empty(max(1, _PART_NUMBERS // size), size)
        for start in range(0, tokens, len(part)):
            weights = self.weights[start : start + len(part)]
            wide = part[: len(weights)].copy_(weights)
            logits[:, start : start + len(weights)] = functional.linear(hidden, wide)
        return logits


def _multiplies_float16() -> bool:
    """Whether the processor has instructions for float16 that torch uses."""
    ask = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)  # older versions of torch cannot tell
    return ask is None or bool(ask())
