"""Recurrent models against their formulas, written out in NumPy."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from stoker.spec.model import Model
from worker.trainer.errors import SpecProblem
from worker.trainer.model import build_model

SPEC: TypeAdapter[Any] = TypeAdapter(Model)
Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def build(spec: dict[str, Any], shape: tuple[int, ...], outputs: int, *, text: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return build_model(SPEC.validate_json(json.dumps(spec)), shape, outputs, text=text)


def weights(model: nn.Module) -> dict[str, Array]:
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _rnn(a: Array, h: Array, u: Array, c: Array) -> tuple[Array, Array]:
    return np.tanh(a + u), c


def _relu(a: Array, h: Array, u: Array, c: Array) -> tuple[Array, Array]:
    return np.maximum(a + u, 0), c


def _gru(a: Array, h: Array, u: Array, c: Array) -> tuple[Array, Array]:
    (ar, az, an), (ur, uz, un) = np.split(a, 3, -1), np.split(u, 3, -1)
    z = _sigmoid(az + uz)
    return (1 - z) * np.tanh(an + _sigmoid(ar + ur) * un) + z * h, c


def _lstm(a: Array, h: Array, u: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(a + u, 4, -1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


CELLS: dict[str, tuple[dict[str, Any], Any]] = {
    "rnn": ({"type": "rnn"}, _rnn),
    "relu": ({"type": "rnn", "nonlinearity": "relu"}, _relu),
    "gru": ({"type": "gru"}, _gru),
    "lstm": ({"type": "lstm"}, _lstm),
    "projected": ({"type": "lstm", "proj_size": 3}, _lstm),
}


def _layer(w: dict[str, Array], name: str, x: Array, cell: Any) -> Array:
    """(B, T, F) → (B, T, W), one direction; `name` ends as torch's weights do."""
    into, over = w[f"layers.weight_ih_{name}"], w[f"layers.weight_hh_{name}"]
    project = w.get(f"layers.weight_hr_{name}")
    units = over.shape[0] // {"_rnn": 1, "_relu": 1, "_gru": 3, "_lstm": 4}[cell.__name__]
    h, c, said = np.zeros((len(x), over.shape[1])), np.zeros((len(x), units)), []
    for t in range(x.shape[1]):
        h, c = cell(x[:, t] @ into.T + w[f"layers.bias_ih_{name}"], h, h @ over.T + w[f"layers.bias_hh_{name}"], c)
        h = h if project is None else h @ project.T
        said.append(h)
    return np.stack(said, 1)


@pytest.mark.proves("ARCH-09", cases=["relu", "rnn"])
@pytest.mark.proves("ARCH-10", cases=["gru", "lstm", "projected"])
@pytest.mark.parametrize("name", CELLS)
def test_text_is_its_formula(name: str) -> None:
    spec, cell = CELLS[name]
    model = build(spec | {"num_layers": 2, "hidden_size": 6, "embedding_size": 4}, (9,), 11, text=True)
    ids, w = torch.randint(0, 11, (3, 9)), weights(model)
    x = w["tokens.weight"][ids.numpy()]
    for layer in ("l0", "l1"):
        x = _layer(w, layer, x, cell)
    np.testing.assert_allclose(model(ids).detach().numpy(), x @ w["head.weight"].T, atol=1e-6)


@pytest.mark.proves("ARCH-09", cases=["rnn"])
@pytest.mark.parametrize("name", CELLS)
def test_a_series_read_both_ways_is_its_formula(name: str) -> None:
    spec, cell = CELLS[name]
    model = build(spec | {"hidden_size": 6, "bidirectional": True}, (7, 5), 2)
    x, w = torch.randn(4, 7, 5), weights(model)
    there = _layer(w, "l0", x.double().numpy(), cell)[:, -1]
    back = _layer(w, "l0_reverse", x.double().numpy()[:, ::-1], cell)[:, -1]
    expected = np.concatenate((there, back), -1) @ w["head.weight"].T + w["head.bias"]
    np.testing.assert_allclose(model(x).detach().numpy(), expected, atol=1e-6)


def test_a_plain_curve_is_a_series_of_one_feature() -> None:
    model = build({"type": "gru", "hidden_size": 6}, (7,), 2)
    x = torch.randn(4, 7)
    expected = _layer(weights(model), "l0", x.double().numpy()[..., None], _gru)[:, -1]
    w = weights(model)
    np.testing.assert_allclose(model(x).detach().numpy(), expected @ w["head.weight"].T + w["head.bias"], atol=1e-6)


@pytest.mark.proves("ARCH-25")
def test_a_tied_head_is_the_embedding() -> None:
    model = build(
        {"type": "lstm", "hidden_size": 8, "proj_size": 5, "embedding_size": 5, "tie_embeddings": True}, (9,), 11, text=True
    )
    assert not any(name.startswith("head") for name, _ in model.named_parameters())
    ids, w = torch.randint(0, 11, (2, 9)), weights(model)
    expected = _layer(w, "l0", w["tokens.weight"][ids.numpy()], _lstm) @ w["tokens.weight"].T
    np.testing.assert_allclose(model(ids).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("init", [{"type": "torch_default"}, {"type": "normal", "std": 0.3}])
def test_a_forget_gate_starts_where_it_is_told(init: dict[str, Any]) -> None:
    model = build({"type": "lstm", "num_layers": 2, "hidden_size": 64, "forget_bias": 1.5, "init": init}, (9, 64), 3)
    w = weights(model)
    for layer in ("l0", "l1"):
        both = w[f"layers.bias_ih_{layer}"] + w[f"layers.bias_hh_{layer}"]
        np.testing.assert_array_equal(both[64:128], 1.5)
        assert np.abs(both[:64]).max() <= 0.25  # two biases, each within 1 / sqrt(64)
    if init["type"] == "normal":
        assert w["layers.weight_hh_l1"].std() == pytest.approx(0.3, rel=0.05)
        assert not w["layers.bias_ih_l0"][:64].any()


@pytest.mark.parametrize(
    ("spec", "shape", "text", "message"),
    [
        ({"type": "rnn"}, (3, 8, 8), False, r"model.type: rnn reads \(steps, features\)"),
        ({"type": "gru", "bidirectional": True}, (9,), True, "model.bidirectional"),
        ({"type": "gru", "tie_embeddings": True, "embedding_size": 5}, (9,), True, "model.tie_embeddings"),
        ({"type": "lstm", "proj_size": 128}, (9, 2), False, "model.proj_size"),
    ],
)
def test_what_does_not_fit_is_named(spec: dict[str, Any], shape: tuple[int, ...], text: bool, message: str) -> None:
    with pytest.raises(SpecProblem, match=message):
        build(spec, shape, 4, text=text)
