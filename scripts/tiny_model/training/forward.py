"""The forward pass of a Llama model for training on a CPU, some three times as fast as transformers' own.

It reads the parameters of a `LlamaForCausalLM`, so the trained model needs no conversion. Matrices are multiplied in
bfloat16, which CPUs with AVX-512 BF16 or AMX do some four times as fast as float32; all else is float32.
(`torch.autocast` would run torch's own attention in bfloat16, too, which is slower on a CPU.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

ROPE_THETA = 10000.0
softmax_backward = torch.ops.aten._softmax_backward_data  # noqa: SLF001 - no public name of it


class _Project(torch.autograd.Function):
    """A linear layer without bias: `x` (tokens, in) and the weight (out, in) give (tokens, out)."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        x, weight = x.bfloat16(), weight.bfloat16()
        context.save_for_backward(x, weight)
        return functional.linear(x, weight).float()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = context.saved_tensors
        gradient = gradient.bfloat16()
        return (gradient @ weight).float(), (gradient.mT @ x).float()


class _Attend(torch.autograd.Function):
    """Attention of queries, keys and values, each (heads, tokens, head_size), under a `mask` (tokens, tokens) to add.

    It computes the whole matrix of weights, which is faster than blocks up to some thousand tokens.
    """

    @staticmethod
    def forward(
        context: Any, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        queries = (queries * queries.shape[-1] ** -0.5).bfloat16()
        keys, values = keys.bfloat16(), values.bfloat16()
        weights = torch.softmax(torch.baddbmm(mask, queries, keys.mT), -1)
        context.save_for_backward(queries, keys, values, weights)
        return (weights @ values).float()

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        queries, keys, values, weights = context.saved_tensors
        gradient = gradient.bfloat16()
        scores = softmax_backward(gradient @ values.mT, weights, -1, torch.bfloat16)
        scale = queries.shape[-1] ** -0.5
        return (scores @ keys).float() * scale, (scores.mT @ queries).float(), (weights.mT @ gradient).float(), None


def rotation(tokens: int, head_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine of the rotary embedding, each (tokens, head_size)."""
    frequencies = ROPE_THETA ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
    angles = torch.outer(torch.arange(tokens, dtype=torch.float32), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotate(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Apply the rotary embedding to queries or keys (heads, tokens, head_size)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine


def _layer(
    layer: LlamaDecoderLayer,
    x: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    tokens, width = x.shape
    cosine, sine = angles
    attention, mlp = layer.self_attn, layer.mlp

    def project(into: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = _Project.apply(x, into.weight)  # type: ignore[no-untyped-call]
        return projected

    def heads(into: torch.nn.Linear) -> torch.Tensor:
        return project(into, normed).view(tokens, -1, cosine.shape[-1]).transpose(0, 1)

    normed = functional.rms_norm(x, (width,), layer.input_layernorm.weight, epsilon)
    queries, keys = (rotate(heads(into), cosine, sine) for into in (attention.q_proj, attention.k_proj))
    mixed = _Attend.apply(queries, keys, heads(attention.v_proj), mask)  # type: ignore[no-untyped-call]
    x = x + project(attention.o_proj, mixed.transpose(0, 1).reshape(tokens, width))
    normed = functional.rms_norm(x, (width,), layer.post_attention_layernorm.weight, epsilon)
    return x + project(mlp.down_proj, functional.silu(project(mlp.gate_proj, normed)) * project(mlp.up_proj, normed))


def hidden_states(model: LlamaForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Return the last hidden states (tokens, width) of `model.model(ids)`, except for rounding.

    Args:
        model: a Llama model with as many key heads as query heads.
        ids: token ids (tokens) of one text.
    """
    config, (tokens,) = model.config, ids.shape
    angles = rotation(tokens, config.hidden_size // config.num_attention_heads)
    mask = torch.full((tokens, tokens), -torch.inf, dtype=torch.bfloat16).triu(1)
    x = functional.embedding(ids, model.model.embed_tokens.weight)
    for layer in model.model.layers:
        x = _layer(layer, x, angles, mask, config.rms_norm_eps)
    return functional.rms_norm(x, (config.hidden_size,), model.model.norm.weight, config.rms_norm_eps)
