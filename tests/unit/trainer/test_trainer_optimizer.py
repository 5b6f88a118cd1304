"""Optimizers against NumPy written from the papers' formulas and PyTorch's documentation, step by step in float64."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
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
    Muon,
    NAdam,
    RAdam,
    RMSprop,
)
from stoker.spec.param_groups import ParamGroup
from worker.trainer.errors import SpecProblem
from worker.trainer.optimizer import build_optimizer
from worker.trainer.param_groups import check_patterns

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


def nadam(spec: NAdam, w: Array) -> Iterator[Array]:
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


def radam(spec: RAdam, w: Array) -> Iterator[Array]:
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


def adamax(spec: Adamax, w: Array) -> Iterator[Array]:
    m, largest, t = np.zeros_like(w), np.zeros_like(w), 0
    while True:
        t += 1
        g = gradient(w) + spec.weight_decay * w
        m, largest = spec.beta1 * m + (1 - spec.beta1) * g, np.maximum(spec.beta2 * largest, np.abs(g) + spec.eps)
        w = w - spec.lr / (1 - spec.beta1**t) * m / largest
        yield w


def rmsprop(spec: RMSprop, w: Array) -> Iterator[Array]:
    square, mean, velocity = np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)
    while True:
        g = gradient(w) + spec.weight_decay * w
        square = spec.rho * square + (1 - spec.rho) * g * g
        mean = spec.rho * mean + (1 - spec.rho) * g
        step = g / (np.sqrt(square - mean**2 if spec.centered else square) + spec.eps)
        velocity = spec.momentum * velocity + step
        w = w - spec.lr * velocity
        yield w


def adagrad(spec: Adagrad, w: Array) -> Iterator[Array]:
    total, t = np.full_like(w, spec.initial_accumulator_value), 0
    while True:
        g = gradient(w) + spec.weight_decay * w
        total = total + g * g
        w = w - spec.lr / (1 + t * spec.lr_decay) * g / (np.sqrt(total) + spec.eps)
        t += 1
        yield w


def adadelta(spec: Adadelta, w: Array) -> Iterator[Array]:
    square, steps = np.zeros_like(w), np.zeros_like(w)
    while True:
        g = gradient(w) + spec.weight_decay * w
        square = spec.rho * square + (1 - spec.rho) * g * g
        step = np.sqrt(steps + spec.eps) / np.sqrt(square + spec.eps) * g
        steps = spec.rho * steps + (1 - spec.rho) * step * step
        w = w - spec.lr * step
        yield w


def adafactor(spec: Adafactor, w: Array) -> Iterator[Array]:
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


def lion(spec: Lion, w: Array) -> Iterator[Array]:
    m = np.zeros_like(w)
    while True:
        g = gradient(w)
        step = np.sign(spec.beta1 * m + (1 - spec.beta1) * g)
        w = w - spec.lr * (step + spec.weight_decay * w)
        m = spec.beta2 * m + (1 - spec.beta2) * g
        yield w


def muon(spec: Muon, w: Array) -> Iterator[Array]:
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
CASES: dict[str, tuple[Any, Callable[..., Iterator[Array]]]] = {
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


@pytest.mark.parametrize(
    ("spec", "reference", "shape"),
    [(Adafactor(lr=0.3), adafactor, (7,)), (Muon(**EXACT), muon, (3, 8)), (Muon(**EXACT), muon, (4, 3, 2, 2))],
    ids=["adafactor-vector", "muon-wide", "muon-kernel"],
)
def test_trajectory_of_other_shapes(spec: Any, reference: Callable[..., Iterator[Array]], shape: tuple[int, ...]) -> None:
    start = np.random.default_rng(0).normal(size=shape)
    param = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, expected = build_optimizer(spec, [("w", param)]), reference(spec, start)
    for _ in range(STEPS):
        param.grad = torch.from_numpy(gradient(param.detach().numpy()))
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), next(expected), rtol=0, atol=1e-9)


def moved(spec: Any, weights: dict[str, Array], steps: int = 1, grads: dict[str, Array] | None = None) -> dict[str, Array]:
    params = {name: torch.nn.Parameter(torch.from_numpy(np.array(value))) for name, value in weights.items()}
    optimizer = build_optimizer(spec, params.items())
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.lr * group["scale"]
        for name, param in params.items():
            param.grad = torch.from_numpy(np.array(gradient(param.detach().numpy()) if grads is None else grads[name]))
        optimizer.step()
    return {name: param.detach().numpy() for name, param in params.items()}


@pytest.mark.parametrize("name", CASES)
def test_what_is_remembered_is_what_the_spec_says(name: str) -> None:
    """From which the plan counts bytes of memory and of checkpoints."""
    spec, _ = CASES[name]
    weights = {
        n: torch.nn.Parameter(torch.ones(s))
        for n, s in (("w", (7, 3)), ("cube", (2, 3, 4)), ("head.weight", (3, 2)), ("b", (7,)))
    }
    optimizer = build_optimizer(spec, weights.items())
    for param in weights.values():
        param.grad = torch.ones_like(param)
    optimizer.step()
    treatments = spec.treatments((name, tuple(param.shape)) for name, param in weights.items())
    for param, treatment in zip(weights.values(), treatments, strict=True):
        state = optimizer.state[param]
        assert {key: tuple(value.shape) for key, value in state.items()} == dict(spec.remembered(tuple(param.shape), treatment))
        assert all(value.element_size() == 4 for value in state.values())


W = np.random.default_rng(1).normal(size=(4, 3))
G = np.random.default_rng(2).normal(size=(4, 3))
STILL = np.zeros((4, 3))


def test_the_first_step_of_sgd_is_the_rate_times_the_gradient() -> None:
    np.testing.assert_array_equal(moved(SGD(lr=0.25), {"w": W}, grads={"w": G})["w"], W - 0.25 * G)


def test_no_momentum_is_plain_descent() -> None:
    after = moved(SGD(lr=0.05, momentum=0.0), {"w": W}, STEPS)["w"]
    plain = W
    for _ in range(STEPS):
        plain = plain - 0.05 * gradient(plain)
    np.testing.assert_allclose(after, plain, rtol=0, atol=1e-12)


def test_adams_epsilon_beside_the_root_slows_the_step() -> None:
    after = moved(Adam(lr=0.1, eps=1.0), {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * G / (np.abs(G) + 1.0), rtol=0, atol=1e-12)


def test_the_first_step_of_adagrad() -> None:
    after = moved(Adagrad(lr=0.1, eps=0.01, initial_accumulator_value=0.3), {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * G / (np.sqrt(0.3 + G * G) + 0.01), rtol=0, atol=1e-12)


def test_momentum_decay_moves_nadam() -> None:
    slow, fast = (moved(NAdam(lr=0.01, momentum_decay=psi), {"w": W}, STEPS)["w"] for psi in (4e-3, 4e-1))
    assert np.abs(slow - fast).max() > 1e-3


ADAPTIVE = (Adam(), NAdam(), Adamax(), RMSprop(), Adagrad(), Adafactor(), Adadelta(), Lion())


@pytest.mark.parametrize("spec", ADAPTIVE, ids=lambda spec: spec.type)
def test_adaptive_steps_do_not_depend_on_the_scale_of_gradients(spec: Any) -> None:
    """A coordinate with 100 times the gradient takes about the same step; with sgd it takes 100 times the step."""
    grads = {"large": np.array([50.0]), "small": np.array([0.5])}
    start = {name: np.ones(1) for name in grads}
    after = moved(spec, start, STEPS, grads)
    assert (1 - after["large"]) / (1 - after["small"]) == pytest.approx(1.0, rel=0.02)
    plain = moved(SGD(lr=1e-4), start, STEPS, grads)
    assert (1 - plain["large"]) / (1 - plain["small"]) == pytest.approx(100.0)


DECOUPLED = (
    Adam(weight_decay=0.3, decoupled=True),
    AdamW(weight_decay=0.3),
    NAdam(weight_decay=0.3, decoupled=True),
    RAdam(weight_decay=0.3, decoupled=True),
    Adafactor(weight_decay=0.3),
    Lion(weight_decay=0.3),
    Muon(weight_decay=0.3),
)


@pytest.mark.parametrize("spec", DECOUPLED, ids=lambda spec: spec.type)
def test_decoupled_decay_shrinks_what_has_no_gradient(spec: Any) -> None:
    np.testing.assert_array_equal(moved(spec, {"w": W}, grads={"w": STILL})["w"], W * (1 - spec.lr * 0.3))


def test_decay_within_the_moments_is_another_thing() -> None:
    coupled, apart = (moved(kind(lr=0.01, weight_decay=0.3), {"w": W}, STEPS)["w"] for kind in (Adam, AdamW))
    assert np.abs(coupled - apart).max() > 1e-2


def test_norms_and_biases_may_stay_out_of_the_decay() -> None:
    start, still = {"w": W, "bias": W[0]}, {"w": STILL, "bias": STILL[0]}
    after = moved(AdamW(lr=0.1, weight_decay=0.5, decay_norms_and_biases=False), start, grads=still)
    np.testing.assert_array_equal(after["w"], W * (1 - 0.1 * 0.5))
    np.testing.assert_array_equal(after["bias"], W[0])


def test_groups_learn_and_decay_in_their_own_way() -> None:
    groups = (
        ParamGroup(pattern="blocks.0.*", lr_scale=0.5),
        ParamGroup(pattern="*.bias", lr_scale=0.0),
        ParamGroup(pattern="head.?eight", weight_decay=0.0),
    )
    names = ("blocks.0.weight", "blocks.0.bias", "blocks.1.bias", "head.weight", "other")
    after = moved(SGD(lr=0.2, weight_decay=0.1, param_groups=groups), dict.fromkeys(names, W), grads=dict.fromkeys(names, G))
    rates = {"blocks.0.weight": 0.1, "blocks.0.bias": 0.1, "blocks.1.bias": 0.0, "head.weight": 0.2, "other": 0.2}
    for name, rate in rates.items():
        decay = 0.0 if name == "head.weight" else 0.1
        np.testing.assert_allclose(after[name], W - rate * (G + decay * W), rtol=0, atol=1e-15)


def test_alike_weights_are_one_group() -> None:
    weights = [(f"w{i}", torch.nn.Parameter(torch.zeros(2, 2))) for i in range(5)]
    assert len(build_optimizer(AdamW(), weights).param_groups) == 1


def test_the_rate_of_each_weight_may_be_scaled() -> None:
    weights = [(f"layer{i}", torch.nn.Parameter(torch.zeros(2, 2))) for i in range(3)]
    optimizer = build_optimizer(AdamW(), weights, lambda name: 0.5 ** int(name[-1]))
    assert [group["scale"] for group in optimizer.param_groups] == [1.0, 0.5, 0.25]


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    spec = SGD(param_groups=(ParamGroup(pattern="layer*"), ParamGroup(pattern="layer1"), ParamGroup(pattern="x")))
    assert spec.idle_groups(["layer0", "layer1"]) == [1, 2]
    with pytest.raises(SpecProblem, match=r"param_groups\[1\].*'layer1' matches no weight"):
        check_patterns(spec, ["layer0", "layer1"])


def test_muon_leaves_the_rest_to_its_companion() -> None:
    companion = Companion(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
    spec = Muon(lr=0.05, companion=companion, **EXACT)
    start = {name: W for name in ("tokens.weight", "blocks.0.q.weight", "head.weight")} | {"blocks.0.q.bias": W[0]}
    after = moved(spec, start, STEPS)
    steps = STEPS - 1
    as_matrix = [next(each) for each in [muon(spec, W)] for _ in range(STEPS)][steps]
    alone = AdamW(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
    as_other = [next(each) for each in [adam(alone, W)] for _ in range(STEPS)][steps]
    as_bias = [next(each) for each in [adam(alone, W[0])] for _ in range(STEPS)][steps]
    for name, right in (("blocks.0.q.weight", as_matrix), ("tokens.weight", as_other), ("head.weight", as_other)):
        np.testing.assert_allclose(after[name], right, rtol=0, atol=1e-9)
    np.testing.assert_allclose(after["blocks.0.q.bias"], as_bias, rtol=0, atol=1e-9)


def test_the_last_layer_of_a_stack_is_the_companions() -> None:
    kinds = [
        t.companion for t in Muon().treatments([("1.weight", (4, 3)), ("1.bias", (4,)), ("3.weight", (2, 4)), ("3.bias", (2,))])
    ]
    assert kinds == [False, True, True, True]
    kinds = [t.companion for t in Muon().treatments([("tokens.weight", (9, 4)), ("blocks.0.ffn.down.weight", (4, 4))])]
    assert kinds == [True, False]


def test_muon_in_bfloat16_is_that_of_torch() -> None:
    w = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
    own, other = torch.nn.Parameter(w.clone()), torch.nn.Parameter(w.clone())
    ours, theirs = build_optimizer(Muon(lr=0.05), [("w", own)]), torch.optim.Muon([other], lr=0.05, weight_decay=0.0)
    for _ in range(STEPS):
        for param, optimizer in ((own, ours), (other, theirs)):
            param.grad = param.detach() ** 3 + 0.5 * param.detach() - 0.1
            optimizer.step()
    torch.testing.assert_close(own, other, rtol=0, atol=2e-3)


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(SpecProblem, match="momentum"):
        build_optimizer(SGD(nesterov=True), [("w", torch.nn.Parameter(torch.zeros(1)))])
