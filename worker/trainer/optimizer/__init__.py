"""Optimizer specs into torch optimizers, with fused kernels: one pass over all weights, the same bits every time."""

from collections.abc import Sequence
from typing import Any, assert_never

import torch

from stoker.spec.optimizer import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Companion,
    Lion,
    Moments,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.optimizer.lion import Lion as OwnLion
from worker.trainer.optimizer.muon import Muon as OwnMuon
from worker.trainer.optimizer.param_groups import Group, Named, Scale, even, grouped
from worker.trainer.runtime.shards import local


def build_optimizer(spec: Optimizer, weights: Named, scale: Scale = even) -> torch.optim.Optimizer:
    """`weights`: those that are learned, by name; `scale`: a factor on the learning rate of each.

    The loop sets the rate of each group to the schedule's times the group's `scale`.
    """
    return optimizer_of(spec, grouped(spec, weights, scale))


def optimizer_of(spec: Optimizer, groups: Sequence[Group]) -> torch.optim.Optimizer:
    """Of weights in groups. PyTorch 2.13 has no kernels over all weights at once for those in parts, but for Adam."""
    in_parts = any(local(param) is not param for group in groups for param in group["params"])
    foreach = False if in_parts else None
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
                fused=not in_parts,
            )
        case Adam():
            kind = torch.optim.AdamW if spec.decoupled else torch.optim.Adam
            return kind(groups, spec.lr, _betas(spec), spec.eps, amsgrad=spec.amsgrad, fused=True)
        case AdamW():
            return torch.optim.AdamW(groups, spec.lr, _betas(spec), spec.eps, amsgrad=spec.amsgrad, fused=True)
        case NAdam():
            return torch.optim.NAdam(
                groups,
                spec.lr,
                _betas(spec),
                spec.eps,
                momentum_decay=spec.momentum_decay,
                decoupled_weight_decay=spec.decoupled,
                foreach=foreach,
            )
        case RAdam():
            return torch.optim.RAdam(
                groups, spec.lr, _betas(spec), spec.eps, decoupled_weight_decay=spec.decoupled, foreach=foreach
            )
        case Adamax():
            return torch.optim.Adamax(groups, spec.lr, _betas(spec), spec.eps, foreach=foreach)
        case RMSprop():
            return torch.optim.RMSprop(
                groups, spec.lr, spec.rho, spec.eps, momentum=spec.momentum, centered=spec.centered, foreach=foreach
            )
        case Adagrad():
            start = spec.initial_accumulator_value
            return torch.optim.Adagrad(
                groups, spec.lr, spec.lr_decay, initial_accumulator_value=start, eps=spec.eps, foreach=foreach
            )
        case Adadelta():
            return torch.optim.Adadelta(groups, spec.lr, spec.rho, spec.eps, foreach=foreach)
        case Adafactor():
            if in_parts:
                raise SpecProblem("optimizer.type: adafactor's sums of rows and columns need whole weights; use adamw, or ddp")
            decay, eps = -spec.beta2_decay, (spec.eps, spec.least_size)
            return torch.optim.Adafactor(groups, spec.lr, decay, eps, spec.clip_threshold)
        case Lion():
            return OwnLion(groups, spec.lr, _betas(spec))
        case Muon():
            return OwnMuon(groups, _of_matrices(spec), _of_companion(spec.companion))
        case _:
            assert_never(spec)


def _betas(spec: Moments | Lion) -> tuple[float, float]:
    return spec.beta1, spec.beta2


def _of_matrices(spec: Muon) -> dict[str, Any]:
    return {
        "lr": spec.lr,
        "momentum": spec.momentum,
        "nesterov": spec.nesterov,
        "iterations": spec.newton_schulz_steps,
        "precision": spec.newton_schulz_precision,
        "adjust_lr": spec.adjust_lr,
    }


def _of_companion(spec: Companion) -> dict[str, Any]:
    return {"lr": spec.lr, "betas": (spec.beta1, spec.beta2), "eps": spec.eps}
