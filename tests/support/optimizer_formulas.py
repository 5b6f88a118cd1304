"""Optimizers written from the papers' formulas and PyTorch's documentation in NumPy, step by step in float64.

Each takes a spec, weights to begin with and their gradient as a function of them, and gives the weights after every step.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from stoker.spec.optimizer import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
)

Array = np.ndarray[Any, np.dtype[np.float64]]
Gradient = Callable[[Array], Array]
Formula = Callable[[Any, Array, Gradient], Iterator[Array]]


def sgd(spec: SGD, w: Array, gradient: Gradient) -> Iterator[Array]:
    velocity: Array | None = None
    while True:
        g = gradient(w) + spec.weight_decay * w
        if spec.momentum:
            velocity = g if velocity is None else spec.momentum * velocity + (1 - spec.dampening) * g
            g = g + spec.momentum * velocity if spec.nesterov else velocity
        w = w - spec.lr * g
        yield w


def adam(spec: Adam | AdamW, w: Array, gradient: Gradient) -> Iterator[Array]:
    m, v, largest, t = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w), 0
    decoupled = isinstance(spec, AdamW) or spec.decoupled
    while True:
        t += 1
        g = gradient(w)
        if decoupled:
            w = w - spec.lr * spec.weight_decay * w
        else:
            g = g + spec.weight_decay * w
        m, v = spec.beta1 * m + (1 - spec.beta1) * g, spec.beta2 * v + (1 - spec.beta2) * g * g
        largest = np.maximum(largest, v)
        second = largest if spec.amsgrad else v
        w = w - spec.lr * (m / (1 - spec.beta1**t)) / (np.sqrt(second / (1 - spec.beta2**t)) + spec.eps)
        yield w


def nadam(spec: NAdam, w: Array, gradient: Gradient) -> Iterator[Array]:
    m, v, product, t = np.zeros_like(w), np.zeros_like(w), 1.0, 0
    while True:
        t += 1
        g = gradient(w)
        if spec.decoupled:
            w = w * (1 - spec.lr * spec.weight_decay)
        else:
            g = g + spec.weight_decay * w
        now, then = (spec.beta1 * (1 - 0.5 * 0.96 ** (at * spec.momentum_decay)) for at in (t, t + 1))
        product *= now
        m, v = spec.beta1 * m + (1 - spec.beta1) * g, spec.beta2 * v + (1 - spec.beta2) * g * g
        ahead = then * m / (1 - product * then) + (1 - now) * g / (1 - product)
        w = w - spec.lr * ahead / (np.sqrt(v / (1 - spec.beta2**t)) + spec.eps)
        yield w


def radam(spec: RAdam, w: Array, gradient: Gradient) -> Iterator[Array]:
    m, v, t, longest = np.zeros_like(w), np.zeros_like(w), 0, 2 / (1 - spec.beta2) - 1
    while True:
        t += 1
        g = gradient(w)
        if spec.decoupled:
            w = w * (1 - spec.lr * spec.weight_decay)
        else:
            g = g + spec.weight_decay * w
        m, v = spec.beta1 * m + (1 - spec.beta1) * g, spec.beta2 * v + (1 - spec.beta2) * g * g
        first = m / (1 - spec.beta1**t)
        length = longest - 2 * t * spec.beta2**t / (1 - spec.beta2**t)
        if length > 5:
            r = math.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
            first = first * r * math.sqrt(1 - spec.beta2**t) / (np.sqrt(v) + spec.eps)
        w = w - spec.lr * first
        yield w


def adamax(spec: Adamax, w: Array, gradient: Gradient) -> Iterator[Array]:
    m, largest, t = np.zeros_like(w), np.zeros_like(w), 0
    while True:
        t += 1
        g = gradient(w) + spec.weight_decay * w
        m, largest = spec.beta1 * m + (1 - spec.beta1) * g, np.maximum(spec.beta2 * largest, np.abs(g) + spec.eps)
        w = w - spec.lr / (1 - spec.beta1**t) * m / largest
        yield w


def rmsprop(spec: RMSprop, w: Array, gradient: Gradient) -> Iterator[Array]:
    square, mean, velocity = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    while True:
        g = gradient(w) + spec.weight_decay * w
        square = spec.rho * square + (1 - spec.rho) * g * g
        mean = spec.rho * mean + (1 - spec.rho) * g
        step = g / (np.sqrt(square - mean**2 if spec.centered else square) + spec.eps)
        velocity = spec.momentum * velocity + step
        w = w - spec.lr * velocity
        yield w


def adagrad(spec: Adagrad, w: Array, gradient: Gradient) -> Iterator[Array]:
    total, t = np.full_like(w, spec.initial_accumulator_value), 0
    while True:
        g = gradient(w) + spec.weight_decay * w
        total = total + g * g
        w = w - spec.lr / (1 + t * spec.lr_decay) * g / (np.sqrt(total) + spec.eps)
        t += 1
        yield w


def adadelta(spec: Adadelta, w: Array, gradient: Gradient) -> Iterator[Array]:
    square, steps = np.zeros_like(w), np.zeros_like(w)
    while True:
        g = gradient(w) + spec.weight_decay * w
        square = spec.rho * square + (1 - spec.rho) * g * g
        step = np.sqrt(steps + spec.eps) / np.sqrt(square + spec.eps) * g
        steps = spec.rho * steps + (1 - spec.rho) * step * step
        w = w - spec.lr * step
        yield w


def adafactor(spec: Adafactor, w: Array, gradient: Gradient) -> Iterator[Array]:
    rows, columns, whole, t = np.zeros((len(w), 1)), np.zeros((1, w.shape[-1])), np.zeros_like(w), 0
    while True:
        t += 1
        g, old, size = gradient(w), t**-spec.beta2_decay, max(spec.least_size, float(np.sqrt(np.mean(w * w))))
        w = w * (1 - spec.lr * spec.weight_decay)
        if w.ndim > 1:
            rows = (1 - old) * rows + old * (g * g).mean(1, keepdims=True)
            columns = (1 - old) * columns + old * (g * g).mean(0, keepdims=True)
            second = rows @ columns / max(rows.mean(), spec.eps)
        else:
            second = whole = (1 - old) * whole + old * g * g
        step = g / np.sqrt(np.maximum(second, spec.eps**2))
        step = step / max(1.0, float(np.sqrt(np.mean(step * step))) / spec.clip_threshold)
        w = w - min(spec.lr, 1 / math.sqrt(t)) * size * step
        yield w


def lion(spec: Lion, w: Array, gradient: Gradient) -> Iterator[Array]:
    m = np.zeros_like(w)
    while True:
        g = gradient(w)
        step = np.sign(spec.beta1 * m + (1 - spec.beta1) * g)
        w = w - spec.lr * (step + spec.weight_decay * w)
        m = spec.beta2 * m + (1 - spec.beta2) * g
        yield w


def muon(spec: Muon, w: Array, gradient: Gradient) -> Iterator[Array]:
    m, shape = np.zeros_like(w), (len(w), w.size // len(w))
    while True:
        g = gradient(w)
        m = spec.momentum * m + (1 - spec.momentum) * g
        x = (((1 - spec.momentum) * g + spec.momentum * m) if spec.nesterov else m).reshape(shape)
        x = x / np.linalg.norm(x)
        for _ in range(spec.newton_schulz_steps):  # of x itself, where the trainer takes the smaller of the two products
            x = 3.4445 * x - 4.7750 * x @ x.T @ x + 2.0315 * x @ x.T @ x @ x.T @ x
        rows, columns = shape
        factor = math.sqrt(max(1, rows / columns)) if spec.adjust_lr == "original" else 0.2 * math.sqrt(max(shape))
        w = w * (1 - spec.lr * spec.weight_decay) - spec.lr * factor * x.reshape(w.shape)
        yield w


EXACT: dict[str, Any] = {"newton_schulz_precision": "weights"}
CASES: dict[str, tuple[Any, Formula]] = {
    "sgd": (SGD(lr=0.05), sgd),
    "sgd-decay": (SGD(lr=0.05, weight_decay=0.1), sgd),
    "sgd-momentum": (SGD(lr=0.05, momentum=0.9), sgd),
    "sgd-dampening": (SGD(lr=0.05, momentum=0.9, dampening=0.3), sgd),
    "sgd-nesterov": (SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01), sgd),
    "adam": (Adam(lr=0.01), adam),
    "adam-betas": (Adam(lr=0.01, beta1=0.7, beta2=0.95, eps=1e-3), adam),
    "adam-eps": (Adam(lr=0.01, eps=1.0), adam),
    "adam-decay": (Adam(lr=0.01, weight_decay=0.1), adam),
    "adam-decoupled": (Adam(lr=0.01, weight_decay=0.1, decoupled=True), adam),
    "adam-amsgrad": (Adam(lr=0.01, amsgrad=True, beta2=0.5), adam),
    "adamw": (AdamW(lr=0.01), adam),
    "adamw-decay": (AdamW(lr=0.01, weight_decay=0.2), adam),
    "adamw-amsgrad": (AdamW(lr=0.01, amsgrad=True, beta2=0.5, weight_decay=0.1), adam),
    "nadam": (NAdam(lr=0.01), nadam),
    "nadam-all": (NAdam(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-3, momentum_decay=0.4, weight_decay=0.1), nadam),
    "nadam-decoupled": (NAdam(lr=0.01, weight_decay=0.1, decoupled=True), nadam),
    "radam": (RAdam(lr=0.01), radam),
    "radam-all": (RAdam(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.1), radam),
    "radam-decoupled": (RAdam(lr=0.01, beta2=0.9, weight_decay=0.1, decoupled=True), radam),
    "adamax": (Adamax(lr=0.01), adamax),
    "adamax-all": (Adamax(lr=0.01, beta1=0.8, beta2=0.9, eps=0.1, weight_decay=0.1), adamax),
    "rmsprop": (RMSprop(lr=0.01), rmsprop),
    "rmsprop-rho": (RMSprop(lr=0.01, rho=0.95), rmsprop),
    "rmsprop-eps": (RMSprop(lr=0.01, eps=0.1), rmsprop),
    "rmsprop-all": (RMSprop(lr=0.01, rho=0.9, momentum=0.8, centered=True, weight_decay=0.1), rmsprop),
    "adagrad": (Adagrad(lr=0.1), adagrad),
    "adagrad-all": (Adagrad(lr=0.1, eps=0.01, lr_decay=0.1, initial_accumulator_value=0.5, weight_decay=0.1), adagrad),
    "adadelta": (Adadelta(), adadelta),
    "adadelta-all": (Adadelta(lr=0.5, rho=0.8, eps=1e-3, weight_decay=0.1), adadelta),
    "adafactor": (Adafactor(), adafactor),
    "adafactor-all": (
        Adafactor(lr=0.3, beta2_decay=0.6, eps=1e-3, least_size=2.0, clip_threshold=1.2, weight_decay=0.1),
        adafactor,
    ),
    "lion": (Lion(lr=0.01), lion),
    "lion-all": (Lion(lr=0.01, beta1=0.8, beta2=0.95, weight_decay=0.1), lion),
    "muon": (Muon(**EXACT), muon),
    "muon-all": (
        Muon(lr=0.1, momentum=0.8, nesterov=False, newton_schulz_steps=3, adjust_lr="match_rms_adamw", weight_decay=0.1, **EXACT),
        muon,
    ),
}
"""Specs by name, and the formula that each follows."""
