"""Optimizer specs into torch optimizers, with fused kernels: one pass over all weights, the same bits every time."""

from collections.abc import Sequence
from typing import assert_never

import torch

from stoker.spec.optimizer import SGD, Adam, AdamW, Optimizer
from worker.trainer.errors import SpecProblem
from worker.trainer.param_groups import Group, Named, Scale, even, grouped
from worker.trainer.shards import local


def build_optimizer(spec: Optimizer, weights: Named, scale: Scale = even) -> torch.optim.Optimizer:
    """`weights`: those that are learned, by name; `scale`: a factor on the learning rate of each.

    The loop sets the rate of each group to the schedule's times the group's `scale`.
    """
    return optimizer_of(spec, grouped(spec, weights, scale))


def optimizer_of(spec: Optimizer, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """Of weights in groups."""
    in_parts = any(local(param) is not param for group in groups for param in group["params"])
    match spec:
        case SGD():
            if spec.nesterov and (spec.momentum == 0 or spec.dampening != 0):
                raise SpecProblem("optimizer.nesterov needs momentum above 0 and dampening 0")
            return torch.optim.SGD(
                groups,
                spec.lr,
                momentum=spec.momentum,
                dampening=spec.dampening,
                nesterov=spec.nesterov,
                fused=not in_parts,  # PyTorch 2.13 has no such kernel for weights in parts
            )
        case Adam():
            return torch.optim.Adam(groups, spec.lr, (spec.beta1, spec.beta2), spec.eps, amsgrad=spec.amsgrad, fused=True)
        case AdamW():
            return torch.optim.AdamW(groups, spec.lr, (spec.beta1, spec.beta2), spec.eps, amsgrad=spec.amsgrad, fused=True)
        case _:
            assert_never(spec)
