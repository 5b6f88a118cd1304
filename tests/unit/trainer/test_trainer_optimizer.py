"""Optimizers against NumPy written from the papers' formulas, step by step in float64."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from stoker.spec.optimizer import SGD, Adam, AdamW
from worker.trainer.errors import SpecProblem
from worker.trainer.optimizer import build_optimizer

STEPS = 20
Array = np.ndarray[Any, np.dtype[np.float64]]


def gradient(w: Array) -> Array:
    """Of a quartic bowl, so that gradients depend on where the weights went."""
    return w**3 + 0.5 * w - 0.1


def sgd(spec: SGD, w: Array) -> Iterator[Array]:
    velocity: Array | None = None
    while True:
        g = gradient(w) + spec.weight_decay * w
        if spec.momentum:
            velocity = g if velocity is None else spec.momentum * velocity + (1 - spec.dampening) * g
            g = g + spec.momentum * velocity if spec.nesterov else velocity
        w = w - spec.lr * g
        yield w


def adam(spec: Adam | AdamW, w: Array) -> Iterator[Array]:
    m, v, largest, t = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), 0
    while True:
        t += 1
        g = gradient(w)
        if isinstance(spec, AdamW):
            w = w - spec.lr * spec.weight_decay * w
        else:
            g = g + spec.weight_decay * w
        m, v = spec.beta1 * m + (1 - spec.beta1) * g, spec.beta2 * v + (1 - spec.beta2) * g * g
        largest = np.maximum(largest, v)
        second = largest if spec.amsgrad else v
        w = w - spec.lr * (m / (1 - spec.beta1**t)) / (np.sqrt(second / (1 - spec.beta2**t)) + spec.eps)
        yield w


CASES: dict[str, tuple[Any, Callable[..., Iterator[Array]]]] = {
    "sgd": (SGD(lr=0.05), sgd),
    "sgd-decay": (SGD(lr=0.05, weight_decay=0.1), sgd),
    "sgd-momentum": (SGD(lr=0.05, momentum=0.9), sgd),
    "sgd-dampening": (SGD(lr=0.05, momentum=0.9, dampening=0.3), sgd),
    "sgd-nesterov": (SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01), sgd),
    "adam": (Adam(lr=0.01), adam),
    "adam-betas": (Adam(lr=0.01, beta1=0.7, beta2=0.95, eps=1e-3), adam),
    "adam-decay": (Adam(lr=0.01, weight_decay=0.1), adam),
    "adam-amsgrad": (Adam(lr=0.01, amsgrad=True, beta2=0.5), adam),
    "adamw": (AdamW(lr=0.01), adam),
    "adamw-decay": (AdamW(lr=0.01, weight_decay=0.2), adam),
    "adamw-amsgrad": (AdamW(lr=0.01, amsgrad=True, beta2=0.5, weight_decay=0.1), adam),
}


@pytest.mark.parametrize("name", CASES)
def test_trajectory_matches_numpy(name: str) -> None:
    spec, reference = CASES[name]
    start = np.random.default_rng(0).normal(size=(7, 3))
    param = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, expected = build_optimizer(spec, [("w", param)]), reference(spec, start)
    for _ in range(STEPS):
        param.grad = torch.from_numpy(gradient(param.detach().numpy()))
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), next(expected), rtol=0, atol=1e-9)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(SpecProblem, match="momentum"):
        build_optimizer(SGD(nesterov=True), [("w", torch.nn.Parameter(torch.zeros(1)))])
