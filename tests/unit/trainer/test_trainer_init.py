"""Weights as they start, against closed forms, scipy and an SVD."""

import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stoker.spec.model.init import Init, Scheme
from stoker.spec.model.mlp import MLP
from tests.support.late import Late
from worker.trainer.model.init import draw, initialize
from worker.trainer.model.mlp import build_mlp

stats = Late("scipy.stats")

INIT: TypeAdapter[Any] = TypeAdapter(Init)
SCHEME: TypeAdapter[Any] = TypeAdapter(Scheme)
IN, OUT = 1024, 512


@cache
def _drawn(seed: int, text: str) -> torch.Tensor:
    spec = json.loads(text)
    torch.manual_seed(seed)
    layer = nn.Linear(IN, OUT)
    initialize(layer, INIT.validate_python(spec))
    assert not layer.bias.any() or spec["type"] == "torch_default"
    return layer.weight.detach()


def drawn(seed: int = 0, **spec: Any) -> torch.Tensor:
    return _drawn(seed, json.dumps(spec))


KINDS: dict[str, dict[str, Any]] = {
    "torch_default": {},
    "normal": {"std": 0.03},
    "uniform": {"bound": 0.1},
    "trunc_normal": {"std": 0.02, "cutoff": 1.5},
    "xavier": {"gain": 1.3},
    "he": {},
    "lecun": {},
    "orthogonal": {"gain": 2.0},
}


@pytest.mark.proves("INIT-01")
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_and_a_type_give_the_same_weights_and_another_type_another_spread(kind: str) -> None:
    first, other = (drawn(seed, type=kind, **KINDS[kind]) for seed in (0, 1))
    again = _drawn.__wrapped__(0, json.dumps({"type": kind, **KINDS[kind]}))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    spreads = {k: float(drawn(type=k, **v).std()) for k, v in KINDS.items()}
    nearest = min(abs(math.log(spreads[kind] / s)) for k, s in spreads.items() if k != kind)
    assert nearest > 0.02


@pytest.mark.proves("INIT-02")
def test_random_weights_have_the_spread_and_the_bounds_that_are_asked_for() -> None:
    assert float(drawn(type="normal", std=0.03).std()) == pytest.approx(0.03, rel=0.01)
    even = drawn(type="uniform", bound=0.1)
    assert float(even.max()) == pytest.approx(0.1, rel=0.01)
    assert float(even.min()) == pytest.approx(-0.1, rel=0.01)
    assert float(even.std()) == pytest.approx(float(stats.uniform(-0.1, 0.2).std()), rel=0.01)
    cut = drawn(type="trunc_normal", std=0.02, cutoff=1.5)
    assert float(cut.abs().max()) == pytest.approx(0.03, rel=0.01)
    assert float(cut.std()) == pytest.approx(float(stats.truncnorm(-1.5, 1.5, scale=0.02).std()), rel=0.01)
    assert stats.kstest(cut.flatten()[:5000].numpy(), stats.truncnorm(-1.5, 1.5, scale=0.02).cdf).pvalue > 1e-4


@pytest.mark.proves("INIT-03")
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("gain", [1.0, 1.5])
def test_xavier_keeps_variances_both_ways(distribution: str, gain: float) -> None:
    weight = drawn(type="xavier", distribution=distribution, gain=gain)
    std = gain * math.sqrt(2 / (IN + OUT))
    assert float(weight.std()) == pytest.approx(std, rel=0.01)
    if distribution == "uniform":
        assert float(weight.abs().max()) == pytest.approx(math.sqrt(3) * std, rel=0.01)


@pytest.mark.proves("INIT-04")
@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize(
    ("nonlinearity", "squared"),
    [("relu", 2.0), ("leaky_relu", 2 / (1 + 0.01**2)), ("tanh", 25 / 9), ("selu", 9 / 16), ("sigmoid", 1.0), ("linear", 1.0)],
)
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", IN), ("fan_out", OUT)])
def test_he_keeps_variances_one_way(distribution: str, nonlinearity: str, squared: float, mode: str, fan: int) -> None:
    weight = drawn(type="he", distribution=distribution, nonlinearity=nonlinearity, mode=mode)
    assert float(weight.std()) == pytest.approx(math.sqrt(squared / fan), rel=0.01)


def test_lecun_and_orthogonal() -> None:
    assert float(drawn(type="lecun").std()) == pytest.approx(1 / math.sqrt(IN), rel=0.01)
    values = np.linalg.svd(drawn(type="orthogonal", gain=2.0).double().numpy(), compute_uv=False)
    np.testing.assert_allclose(values, 2.0, rtol=1e-5)


def test_fans_of_convolutions_and_gates_are_those_of_a_unit() -> None:
    torch.manual_seed(0)
    conv, turned = nn.Conv2d(64, 128, 3), nn.ConvTranspose2d(128, 64, 3)
    he = INIT.validate_python({"type": "he", "mode": "fan_in"})
    layer: nn.Conv2d | nn.ConvTranspose2d
    for layer, fan in ((conv, 64 * 9), (turned, 128 * 9)):
        initialize(layer, he)
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan), rel=0.01)
    lstm = nn.LSTM(64, 64)
    initialize(lstm, INIT.validate_python({"type": "orthogonal"}))
    for gate in lstm.get_parameter("weight_hh_l0").detach().chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(64), atol=1e-5, rtol=0)
    assert not any(p.any() for name, p in lstm.named_parameters() if "bias" in name)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "torch_default"])
def test_residual_projections_are_scaled_by_depth(kind: str) -> None:
    spreads = []
    for scaling in ("none", "depth"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64))
        initialize(model, INIT.validate_python({"type": kind, **KINDS[kind], "residual_scaling": scaling}), list(model))
        spreads.append(float(next(model[2].parameters()).detach().std()))
    assert spreads[1] == pytest.approx(spreads[0] / 2, rel=1e-5)


def test_a_constant_and_torchs_own_can_be_asked_of_a_module() -> None:
    layer = nn.Linear(IN, OUT)
    assert draw(layer, SCHEME.validate_python({"type": "constant", "value": 0.5}))
    assert bool((layer.weight == 0.5).all())
    assert not layer.bias.any()
    assert draw(layer, SCHEME.validate_python({"type": "torch_default"}))
    assert float(layer.weight.detach().std()) == pytest.approx(1 / math.sqrt(3 * IN), rel=0.01)
    assert not draw(nn.ReLU(), SCHEME.validate_python({"type": "normal"}))


@pytest.mark.proves("INIT-04")
def test_a_whole_model_starts_as_asked() -> None:
    torch.manual_seed(0)
    model = build_mlp(MLP.model_validate_json('{"hidden_sizes": [512], "init": {"type": "he"}}'), (1024,), 256)
    spreads = [float(p.detach().std()) for p in model.parameters() if p.dim() > 1]
    assert spreads == pytest.approx([math.sqrt(2 / 1024), math.sqrt(2 / 512)], rel=0.01)
