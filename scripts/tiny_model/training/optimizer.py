"""Muon for the layers' matrices and AdamW for the rest: fewer steps than AdamW alone for the same loss.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by
the nearest orthogonal matrix.
"""

from __future__ import annotations

from typing import Any

import torch


class TinyOptimizer:
    """Both optimisers behind one `step`.

    Args:
        model: its `layers` matrices go to Muon, embeddings, head and norms to AdamW.
        muon_lr: peak rate of Muon.
        adam_lr: peak rate of AdamW.
    """

    def __init__(self, model: torch.nn.Module, muon_lr: float, adam_lr: float) -> None:
        """Sort the parameters of `model` into Muon's and AdamW's."""
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in model.named_parameters():
            (matrices if ".layers." in name and parameter.ndim == 2 else others).append(parameter)
        self.peaks = (muon_lr, adam_lr)
        self.optimizers = (
            torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.01),
            torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, scale: float) -> None:
        """Apply the gradients at `scale` times the peak rates, and clear them."""
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the states of both optimisers for a checkpoint."""
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Load the states of a checkpoint."""
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
