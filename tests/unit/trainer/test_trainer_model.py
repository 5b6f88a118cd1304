"""Architectures against independent computations of what they should give."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

from stoker.spec.model import Model
from worker.trainer.errors import SpecProblem
from worker.trainer.model import build_model
from worker.trainer.model.parts import BatchNormAny
from worker.trainer.model.transformer import Rotation

SPEC: TypeAdapter[Any] = TypeAdapter(Model)


def build(spec: dict[str, Any], shape: tuple[int, ...], outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return build_model(SPEC.validate_json(json.dumps(spec)), shape, outputs, text=False)


def decoder(**fields: Any) -> nn.Module:
    small = {"type": "transformer_decoder", "num_layers": 2, "hidden_size": 16, "num_heads": 4}
    return build(small | fields, (12,), 11)


def weights(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


@pytest.mark.proves("ARCH-03", "ARCH-20")
def test_mlp_is_its_formula() -> None:
    model = build({"type": "mlp", "hidden_sizes": [5, 4], "activation": "tanh", "dropout": 0.5}, (3, 2), 2).eval()
    x = torch.randn(7, 3, 2)
    h = x.numpy().reshape(7, 6).astype(float)
    arrays = list(weights(model).values())
    for w, b in ((arrays[0], arrays[1]), (arrays[2], arrays[3])):
        h = np.tanh(h @ w.T + b)
    np.testing.assert_allclose(model(x).detach().numpy(), h @ arrays[4].T + arrays[5], atol=1e-6)


def _numpy_decoder(model: nn.Module, ids: np.ndarray[Any, Any], *, heads: int, kv: int) -> np.ndarray[Any, Any]:
    """GPT-2's forward pass with learned positions, layer norms and grouped keys, written out in float64."""
    w = weights(model)

    def norm(x: Any, name: str) -> Any:
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[
            f"{name}.bias"
        ]

    def linear(x: Any, name: str) -> Any:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    length = ids.shape[-1]
    x = w["tokens.weight"][ids] + w["positions.weight"][:length]
    for block in ("blocks.0", "blocks.1"):
        read = norm(x, f"{block}.attention_norm")
        counts = {"q": heads, "k": kv, "v": kv}
        qs, ks, vs = (linear(read, f"{block}.attention.{name}").reshape(length, n, -1) for name, n in counts.items())
        out = []
        for head in range(heads):
            q, k, v = qs[:, head], ks[:, head * kv // heads], vs[:, head * kv // heads]
            scores = np.where(np.tril(np.ones((length, length))) > 0, q @ k.T / math.sqrt(q.shape[1]), -np.inf)
            share = np.exp(scores - scores.max(-1, keepdims=True))
            out.append(share / share.sum(-1, keepdims=True) @ v)
        x = x + linear(np.concatenate(out, -1), f"{block}.attention.out")
        h = linear(norm(x, f"{block}.ffn_norm"), f"{block}.ffn.up")
        x = x + linear(np.maximum(h, 0), f"{block}.ffn.down")
    return np.asarray(norm(x, "norm") @ w["tokens.weight"].T)


@pytest.mark.parametrize("kv", [4, 2, 1])
def test_decoder_is_gpt2_written_in_numpy(kv: int) -> None:
    model = decoder(num_kv_heads=kv, activation="relu", init={"type": "normal", "std": 0.3}).eval()
    ids = torch.randint(0, 11, (1, 9))
    expected = _numpy_decoder(model, ids[0].numpy(), heads=4, kv=kv)
    np.testing.assert_allclose(model(ids)[0].detach().numpy(), expected, atol=2e-5)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"position": {"type": "rope"}},
    {"position": {"type": "rope", "dim": 2, "base": 500.0}},
    {"position": {"type": "sinusoidal"}},
    {"norm_placement": "post"},
    {"normalization": {"type": "rms"}, "gated_ffn": True, "activation": "silu", "bias": False},
    {"qk_norm": True, "num_kv_heads": 2, "key_dim": 6},
    {"tie_embeddings": False, "ffn_size": 20},
]


@pytest.mark.parametrize("fields", VARIANTS, ids=str)
def test_no_token_sees_a_later_one(fields: dict[str, Any]) -> None:
    model = decoder(**fields, init={"type": "normal", "std": 0.3}).eval()
    ids = torch.randint(0, 11, (2, 12))
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 11
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-3


def test_rotary_scores_depend_on_distance_alone() -> None:
    turn, q, k = Rotation(8, 10000.0, 40), torch.randn(8), torch.randn(8)
    qs, ks = (turn(v.expand(1, 1, 40, 8))[0, 0] for v in (q, k))
    scores = qs @ ks.T
    for distance in (0, 1, 5, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-4)
    assert (scores[0, 0] - scores[0, 5]).abs() > 1e-3


def test_tokens_stand_where_they_are_placed() -> None:
    turn, x, places = Rotation(8, 10000.0, 40), torch.randn(1, 2, 3, 8), torch.tensor([7, 0, 31])
    whole = torch.zeros(1, 2, 40, 8)
    whole[:, :, places] = x
    expected = turn(whole)[:, :, places]
    turn.places = places
    torch.testing.assert_close(turn(x), expected, rtol=0, atol=0)

    model = decoder(init={"type": "normal", "std": 0.3}).eval()
    ids, moved = torch.randint(0, 11, (2, 3)), torch.tensor([4, 9, 2])
    model.place(moved)  # type: ignore[operator]  # a Decoder
    placed = model(ids)
    model.place(None)  # type: ignore[operator]  # a Decoder
    with torch.no_grad():
        model.positions.weight[:3] = model.positions.weight[moved].clone()  # type: ignore[union-attr, index, operator]  # an Embedding
    torch.testing.assert_close(placed, model(ids))


def test_gated_feed_forward_is_its_formula() -> None:
    ffn = decoder(gated_ffn=True, activation="silu", ffn_size=6).blocks[0].ffn  # type: ignore[union-attr, index]  # a Block
    x, w = torch.randn(5, 16), dict(ffn.named_parameters())
    gate, up = x @ w["gate.weight"].T + w["gate.bias"], x @ w["up.weight"].T + w["up.bias"]
    expected = (gate * torch.sigmoid(gate) * up) @ w["down.weight"].T + w["down.bias"]
    torch.testing.assert_close(ffn(x), expected)


def test_residual_outputs_start_smaller_by_depth() -> None:
    model = decoder(num_layers=8, hidden_size=64, init={"type": "normal", "std": 0.1, "residual_scaling": "depth"})
    spread = {name: p.std().item() for name, p in model.named_parameters() if name.endswith("weight") and p.dim() == 2}
    assert spread["blocks.3.attention.out.weight"] == pytest.approx(0.1 / 4, rel=0.1)
    assert spread["blocks.3.ffn.down.weight"] == pytest.approx(0.1 / 4, rel=0.1)
    assert spread["blocks.3.ffn.up.weight"] == pytest.approx(0.1, rel=0.1)
    assert not any(p.detach().any() for name, p in model.named_parameters() if name.endswith((".q.bias", ".v.bias")))


@pytest.mark.proves("ARCH-25")
def test_tied_head_is_the_embedding_and_an_untied_one_is_not() -> None:
    tied, untied = (sum(p.numel() for p in decoder(tie_embeddings=t).parameters()) for t in (True, False))
    assert untied - tied == 11 * 16


LAYERS: list[dict[str, Any]] = [
    {"type": "conv", "channels": 8, "kernel_size": [3, 5], "padding": [1, 2], "bias": False},
    {"type": "norm", "kind": "batch"},
    {"type": "activation", "kind": "relu"},
    {"type": "residual", "layers": [{"type": "conv", "channels": 8, "padding": 1, "groups": 2}, {"type": "norm", "kind": "rms"}]},
    {"type": "pool", "kind": "max"},
    {"type": "conv", "channels": 4, "stride": 2, "dilation": 2, "padding": 2},
    {"type": "norm", "kind": "layer"},
    {"type": "pool", "kind": "global_avg"},
    {"type": "linear", "units": 3},
]


@pytest.mark.proves("ARCH-04")
def test_layers_are_what_torch_gives_for_the_same_chain() -> None:
    model = build({"type": "layers", "layers": LAYERS}, (2, 12, 10), 3).eval()
    p = dict(model.named_parameters())
    x = torch.randn(4, 2, 12, 10)
    h = F.conv2d(x, p["0.weight"], padding=(1, 2))
    h = F.relu(F.batch_norm(h, torch.zeros(8), torch.ones(8), p["1.weight"], p["1.bias"], eps=1e-5))
    inner = F.conv2d(h, p["3.layers.0.weight"], p["3.layers.0.bias"], padding=1, groups=2)
    mean_square = inner.square().mean(1, keepdim=True)
    h = h + inner / (mean_square + 1e-5).sqrt() * p["3.layers.1.norm.weight"].view(1, -1, 1, 1)
    h = F.conv2d(F.max_pool2d(h, 2), p["5.weight"], p["5.bias"], stride=2, padding=2, dilation=2)
    h = (h - h.mean(1, keepdim=True)) / (h.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = F.linear(h.mean((2, 3)), p["8.weight"], p["8.bias"])
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


def test_one_dimensional_layers() -> None:
    chain = [
        {"type": "conv", "channels": 4},
        {"type": "pool", "kind": "avg", "kernel_size": 3},
        {"type": "flatten"},
        {"type": "linear", "units": 2},
    ]
    assert build({"type": "layers", "layers": chain}, (2, 14), 2)(torch.randn(5, 2, 14)).shape == (5, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([{"type": "linear", "units": 4}], r"\(8, 8, 8\)|the task needs \(3,\)"),
        ([{"type": "conv", "channels": 4, "kernel_size": 20}], r"layers\[0\].*does not fit"),
        ([{"type": "flatten"}, {"type": "pool"}], r"layers\[1\].*pool needs"),
        ([{"type": "conv", "channels": 4, "groups": 3}], r"layers\[0\].groups"),
        ([{"type": "residual", "layers": [{"type": "conv", "channels": 9}]}], r"layers\[0\].*keep its shape"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(layers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(SpecProblem, match=message):
        build({"type": "layers", "layers": layers}, (2, 8, 8), 3)


def test_heads_that_do_not_divide_are_refused() -> None:
    for fields in ({"num_heads": 3}, {"num_kv_heads": 3}, {"position": {"type": "rope", "dim": 3}}):
        with pytest.raises(SpecProblem, match="model"):
            decoder(**fields)


def test_batch_norm_of_one_value_uses_and_keeps_the_running_statistics() -> None:
    norm = BatchNormAny(3)
    norm(torch.randn(16, 3))
    kept = norm.running_mean.clone() if norm.running_mean is not None else None
    x = torch.randn(1, 3)
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), expected)
    assert kept is not None
    assert norm.running_mean is not None
    assert torch.equal(kept, norm.running_mean)
