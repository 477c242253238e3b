"""Muon for the layers' matrices and AdamW for the rest: fewer steps than AdamW alone for the same loss.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by
the nearest orthogonal matrix. `torch.optim.Muon` computes it in bfloat16, which most CPUs emulate slowly;
here matrices of one shape are orthogonalised together, in float32.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """Return the matrices (count, rows, columns) with all their singular values moved close to 1."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class TinyOptimizer:
    """Both optimisers behind one `step`.

    Args:
        model: its `layers` matrices go to Muon, embeddings, head and norms to AdamW.
        muon_lr: peak rate of Muon.
        adam_lr: peak rate of AdamW.
        momentum: of Muon (Nesterov).
        weight_decay: decoupled, of the matrices only.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        muon_lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        """Sort the parameters of `model` into Muon's, by shape, and AdamW's."""
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.momentum, self.weight_decay = momentum, weight_decay
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        others = []
        for name, parameter in model.named_parameters():
            if ".layers." in name and parameter.ndim == 2:
                shapes[parameter.shape].append(parameter)
            else:
                others.append(parameter)
        self.groups = list(shapes.values())
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Apply the gradients at `scale` times the peak rates, and clear them."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * scale
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for parameters, momentum in zip(self.groups, self.momenta, strict=True):
            gradients = torch.stack([parameter.grad for parameter in parameters if parameter.grad is not None])
            momentum.lerp_(gradients, 1 - self.momentum)
            rows, columns = gradients.shape[-2:]
            # the factor of the reference implementation: a tall matrix moves further
            updates = orthogonalize(gradients.lerp(momentum, self.momentum)) * max(1, rows / columns) ** 0.5
            rate = self.muon_lr * scale
            for parameter, update in zip(parameters, updates, strict=True):
                parameter.mul_(1 - rate * self.weight_decay).sub_(update, alpha=rate)
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint has to hold."""
        return {"momenta": self.momenta, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.momenta = state["momenta"]
        self.adam.load_state_dict(state["adam"])
