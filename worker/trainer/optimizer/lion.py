"""Lion: steps of one size, in the direction that momentum and gradient agree on (Chen et al. 2023, algorithm 2)."""

from collections.abc import Sequence
from typing import Any

import torch

from worker.trainer.optimizer.param_groups import Group
from worker.trainer.runtime.shards import local


class Lion(torch.optim.Optimizer):
    """All arithmetic is element by element, so each rank moves what it holds of a weight."""

    def __init__(self, groups: Sequence[Group], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(list(groups), {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is computed again
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            if moved:
                self._step(moved, group)

    def _step(self, moved: list[torch.Tensor], group: Group) -> None:
        for weight in moved:
            if "exp_avg" not in self.state[weight]:
                self.state[weight]["exp_avg"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        lr, (beta1, beta2) = group["lr"], group["betas"]
        weights = [local(weight.detach()) for weight in moved]
        gradients = [local(weight.grad) for weight in moved if weight.grad is not None]
        momenta = [local(self.state[weight]["exp_avg"]) for weight in moved]
        directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)
        torch._foreach_sign_(directions)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_add_(weights, directions, alpha=-lr)
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)
