"""Optimizers against NumPy written from the papers' formulas and PyTorch's documentation, step by step in float64."""

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
from stoker.spec.optimizer.param_groups import ParamGroup
from tests.support.optimizer_formulas import CASES, EXACT, Array, Formula, adafactor, adam, muon
from worker.trainer.errors import SpecProblem
from worker.trainer.optimizer import build_optimizer
from worker.trainer.optimizer.param_groups import check_patterns

STEPS = 20


def gradient(w: Array) -> Array:
    """Of a quartic bowl, so that gradients depend on where the weights went."""
    return w**3 + 0.5 * w - 0.1


@pytest.mark.proves("OPT-01")
@pytest.mark.proves("OPT-03", cases=["sgd-dampening", "sgd-momentum"])
@pytest.mark.proves("OPT-04", cases=["sgd", "sgd-decay", "sgd-momentum"])
@pytest.mark.proves("OPT-05", cases=["adam", "adam-amsgrad", "adamw", "adamw-amsgrad"])
@pytest.mark.proves("OPT-06", "OPT-07", cases=["adam", "adam-betas"])
@pytest.mark.proves("OPT-08", cases=["adam-eps"])
@pytest.mark.proves("OPT-09", cases=["rmsprop", "rmsprop-all"])
@pytest.mark.proves("OPT-10", cases=["rmsprop-rho"])
@pytest.mark.proves("OPT-11", cases=["rmsprop-eps"])
@pytest.mark.proves("OPT-12", cases=["adagrad*"])
@pytest.mark.proves("OPT-13", cases=["adagrad-all"])
@pytest.mark.proves("OPT-14", cases=["adadelta*"])
@pytest.mark.proves("OPT-15", cases=["nadam*"])
@pytest.mark.proves("OPT-16", cases=["nadam-all", "sgd-nesterov"])
@pytest.mark.proves("OPT-17", cases=["adadelta", "adagrad", "adam", "rmsprop"])
@pytest.mark.parametrize("name", CASES)
def test_trajectory_matches_numpy(name: str) -> None:
    spec, reference = CASES[name]
    start = np.random.default_rng(0).normal(size=(7, 3))
    param = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, expected = build_optimizer(spec, [("w", param)]), reference(spec, start, gradient)
    for _ in range(STEPS):
        param.grad = torch.from_numpy(gradient(param.detach().numpy()))
        optimizer.step()
        np.testing.assert_allclose(param.detach().numpy(), next(expected), rtol=0, atol=1e-9)


@pytest.mark.proves("OPT-01")
@pytest.mark.parametrize(
    ("spec", "reference", "shape"),
    [(Adafactor(lr=0.3), adafactor, (7,)), (Muon(**EXACT), muon, (3, 8)), (Muon(**EXACT), muon, (4, 3, 2, 2))],
    ids=["adafactor-vector", "muon-wide", "muon-kernel"],
)
def test_trajectory_of_other_shapes(spec: Any, reference: Formula, shape: tuple[int, ...]) -> None:
    start = np.random.default_rng(0).normal(size=shape)
    param = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer, expected = build_optimizer(spec, [("w", param)]), reference(spec, start, gradient)
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


@pytest.mark.proves("OPT-01")
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


@pytest.mark.proves("OPT-02")
def test_the_first_step_of_sgd_is_the_rate_times_the_gradient() -> None:
    np.testing.assert_array_equal(moved(SGD(lr=0.25), {"w": W}, grads={"w": G})["w"], W - 0.25 * G)


@pytest.mark.proves("OPT-03")
def test_no_momentum_is_plain_descent() -> None:
    after = moved(SGD(lr=0.05, momentum=0.0), {"w": W}, STEPS)["w"]
    plain = W
    for _ in range(STEPS):
        plain = plain - 0.05 * gradient(plain)
    np.testing.assert_allclose(after, plain, rtol=0, atol=1e-12)


@pytest.mark.proves("OPT-08")
def test_adams_epsilon_beside_the_root_slows_the_step() -> None:
    after = moved(Adam(lr=0.1, eps=1.0), {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * G / (np.abs(G) + 1.0), rtol=0, atol=1e-12)


@pytest.mark.proves("OPT-05")
@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_fused_steps_are_those_of_a_loop_over_weights(kind: type[Adam | AdamW]) -> None:
    """In float32, as runs compute them; the loop is PyTorch's own, one weight after the other."""
    start = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    fused, looped = (torch.nn.Parameter(start.clone()) for _ in range(2))
    ours = build_optimizer(kind(lr=0.01, weight_decay=0.1), [("w", fused)])
    assert all(group["fused"] for group in ours.param_groups)
    plain = torch.optim.Adam if kind is Adam else torch.optim.AdamW
    theirs = plain([looped], 0.01, weight_decay=0.1, fused=False, foreach=False)
    for _ in range(STEPS):
        for param, optimizer in ((fused, ours), (looped, theirs)):
            param.grad = param.detach() ** 3 + 0.5 * param.detach() - 0.1
            optimizer.step()
    torch.testing.assert_close(fused, looped, rtol=0, atol=1e-6)


@pytest.mark.proves("OPT-06", cases=["*-beta1"])
@pytest.mark.proves("OPT-07", cases=["*-beta2"])
@pytest.mark.parametrize("key", ["beta1", "beta2"])
@pytest.mark.parametrize("kind", [Adam, AdamW, NAdam, RAdam, Adamax, Lion])
def test_weights_move_with_a_beta_as_the_formula_does(kind: Any, key: str) -> None:
    """What a beta changes along the way is what it changes in NumPy, and not nothing."""
    _, formula = CASES[kind().type]
    ways = []
    for beta in (0.6, 0.98):
        spec = kind(lr=0.01, **{key: beta})
        expected = [next(each) for each in [formula(spec, W, gradient)] for _ in range(STEPS)]
        ways.append((np.stack([moved(spec, {"w": W}, count + 1)["w"] for count in range(STEPS)]), np.stack(expected)))
    (one, formula_one), (other, formula_other) = ways
    np.testing.assert_allclose(other - one, formula_other - formula_one, rtol=0, atol=1e-9)
    assert np.abs(formula_other - formula_one).max() > 1e-3


@pytest.mark.proves("OPT-11")
def test_rmsprops_epsilon_is_added_to_the_root() -> None:
    after = moved(RMSprop(lr=0.1, rho=0.75, eps=0.5), {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * G / (np.abs(G) / 2 + 0.5), rtol=0, atol=1e-12)
    assert np.abs(after - (W - 0.1 * G / np.sqrt(G * G / 4 + 0.5))).max() > 1e-3, "not to what it is the root of"


@pytest.mark.proves("OPT-15")
def test_the_first_step_of_nadam_looks_ahead() -> None:
    """By the paper (Dozat 2016, algorithm 2) with one gradient: mu_1 and mu_2 are the momenta of this step and of the next."""
    spec = NAdam(lr=0.1, beta1=0.8, beta2=0.75, momentum_decay=0.5)
    now, then = (0.8 * (1 - 0.5 * 0.96 ** (t * 0.5)) for t in (1, 2))
    ahead = then * 0.2 * G / (1 - now * then) + (1 - now) * G / (1 - now)
    after = moved(spec, {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * ahead / (np.abs(G) + spec.eps), rtol=0, atol=1e-8)


@pytest.mark.proves("OPT-13")
def test_the_first_step_of_adagrad() -> None:
    after = moved(Adagrad(lr=0.1, eps=0.01, initial_accumulator_value=0.3), {"w": W}, grads={"w": G})["w"]
    np.testing.assert_allclose(after, W - 0.1 * G / (np.sqrt(0.3 + G * G) + 0.01), rtol=0, atol=1e-12)


@pytest.mark.proves("OPT-16")
def test_momentum_decay_moves_nadam() -> None:
    slow, fast = (moved(NAdam(lr=0.01, momentum_decay=psi), {"w": W}, STEPS)["w"] for psi in (4e-3, 4e-1))
    assert np.abs(slow - fast).max() > 1e-3


ADAPTIVE = (Adam(), NAdam(), Adamax(), RMSprop(), Adagrad(), Adafactor(), Adadelta(), Lion())


@pytest.mark.proves("OPT-17")
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


@pytest.mark.proves("OPT-18")
@pytest.mark.parametrize("spec", DECOUPLED, ids=lambda spec: spec.type)
def test_decoupled_decay_shrinks_what_has_no_gradient(spec: Any) -> None:
    np.testing.assert_array_equal(moved(spec, {"w": W}, grads={"w": STILL})["w"], W * (1 - spec.lr * 0.3))


@pytest.mark.proves("OPT-18")
def test_decay_within_the_moments_is_another_thing() -> None:
    coupled, apart = (moved(kind(lr=0.01, weight_decay=0.3), {"w": W}, STEPS)["w"] for kind in (Adam, AdamW))
    assert np.abs(coupled - apart).max() > 1e-2


@pytest.mark.proves("OPT-18")
def test_norms_and_biases_may_stay_out_of_the_decay() -> None:
    start, still = {"w": W, "bias": W[0]}, {"w": STILL, "bias": STILL[0]}
    after = moved(AdamW(lr=0.1, weight_decay=0.5, decay_norms_and_biases=False), start, grads=still)
    np.testing.assert_array_equal(after["w"], W * (1 - 0.1 * 0.5))
    np.testing.assert_array_equal(after["bias"], W[0])


@pytest.mark.proves("OPT-02")
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
    as_matrix = [next(each) for each in [muon(spec, W, gradient)] for _ in range(STEPS)][steps]
    alone = AdamW(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.2)
    as_other = [next(each) for each in [adam(alone, W, gradient)] for _ in range(STEPS)][steps]
    as_bias = [next(each) for each in [adam(alone, W[0], gradient)] for _ in range(STEPS)][steps]
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
