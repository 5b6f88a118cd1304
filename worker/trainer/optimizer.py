"""Optimizer specs into torch optimizers, with fused kernels: one pass over all weights, the same bits every time."""

from collections.abc import Iterable
from typing import assert_never

import torch
from torch import nn

from stoker.spec.optimizer import SGD, Adam, AdamW, Optimizer
from worker.trainer.errors import SpecProblem
from worker.trainer.shards import local


def build_optimizer(spec: Optimizer, params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    params = list(params)
    in_parts = any(local(param) is not param for param in params)
    match spec:
        case SGD():
            if spec.nesterov and (spec.momentum == 0 or spec.dampening != 0):
                raise SpecProblem("optimizer.nesterov needs momentum above 0 and dampening 0")
            return torch.optim.SGD(
                params,
                spec.lr,
                momentum=spec.momentum,
                dampening=spec.dampening,
                nesterov=spec.nesterov,
                weight_decay=spec.weight_decay,
                fused=not in_parts,  # PyTorch 2.13 has no such kernel for weights in parts
            )
        case Adam():
            betas = (spec.beta1, spec.beta2)
            return torch.optim.Adam(params, spec.lr, betas, spec.eps, spec.weight_decay, spec.amsgrad, fused=True)
        case AdamW():
            betas = (spec.beta1, spec.beta2)
            return torch.optim.AdamW(params, spec.lr, betas, spec.eps, spec.weight_decay, spec.amsgrad, fused=True)
        case _:
            assert_never(spec)
