"""Muon: momentum made orthogonal moves matrices, and AdamW moves the rest (Jordan et al. 2024)."""

import math
from collections.abc import Sequence
from typing import Any, Literal, assert_never

import torch
from torch.distributed.tensor import DTensor

from worker.trainer.optimizer.param_groups import Group
from worker.trainer.runtime.shards import local, placed, whole

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the polynomial in the singular values: steep at zero, so that few iterations do."""
LEAST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Weights of more than two dimensions are matrices of their first by all others.

    What ranks hold of a weight in parts is put together for its step, in the same order on every rank; momentum stays in parts.
    """

    def __init__(self, groups: Sequence[Group], spec: dict[str, Any], companion: dict[str, Any]) -> None:
        """`spec`: options of the matrices' groups, `companion`: of an AdamW for groups that have `companion` set."""
        others = [group for group in groups if group["companion"]]
        self._companion = torch.optim.AdamW(others, **companion, fused=True) if others else None
        super().__init__([{**group, **spec} for group in groups if not group["companion"]] or others, {})
        if self._companion is not None:
            self.param_groups = [*(g for g in self.param_groups if not g["companion"]), *self._companion.param_groups]
            self._companion.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is computed again
        for group in self.param_groups:
            if not group["companion"]:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._move(weight, weight.grad, group)
        if self._companion is not None:
            self._companion.step()

    def _move(self, weight: torch.Tensor, gradient: torch.Tensor, group: Group) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        part, momentum = local(gradient), local(state["momentum_buffer"])
        momentum.lerp_(part, 1 - group["momentum"])
        step = torch.lerp(part, momentum, group["momentum"]) if group["nesterov"] else momentum
        orthogonal = self._orthogonal(_as_whole(step, weight), group)
        local(weight.detach()).mul_(1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * _factor(group["adjust_lr"], orthogonal.shape)
        local(weight.detach()).add_(local(placed(orthogonal.view(weight.shape), weight)), alpha=-rate)

    def _orthogonal(self, step: torch.Tensor, group: Group) -> torch.Tensor:
        """Of the step as a matrix, the nearest with singular values of about one."""
        matrix = step.reshape(step.shape[0], -1)
        matrix = matrix.bfloat16() if group["precision"] == "bf16" else matrix
        wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
        wide = wide / wide.norm().clamp(min=LEAST_NORM)
        a, b, c = QUINTIC
        for _ in range(group["iterations"]):
            gram = wide @ wide.T
            wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
        return (wide.T if matrix.shape[0] > matrix.shape[1] else wide).contiguous()


def _as_whole(part: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """All of what this rank has a part of, laid out as a weight is. Every rank that has a part calls it."""
    if not isinstance(weight, DTensor):
        return part
    mesh, placements = weight.device_mesh, weight.placements
    return whole(DTensor.from_local(part, mesh, placements, run_check=False, shape=weight.shape, stride=weight.stride()))


def _factor(how: Literal["original", "match_rms_adamw"], shape: torch.Size) -> float:
    rows, columns = shape
    match how:
        case "original":
            return math.sqrt(max(1.0, rows / columns))
        case "match_rms_adamw":
            return 0.2 * math.sqrt(max(rows, columns))
        case _:
            assert_never(how)
