"""Layers, activations, networks and shared parts against independent computations."""

import copy
import json
import math
from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional as F

from stoker.spec.initialization.finetune import Finetune
from stoker.spec.model import Model
from stoker.spec.model.parts import Activation, BatchNorm
from stoker.spec.model.sharing import Share
from worker.trainer.errors import SpecProblem
from worker.trainer.initialization.finetune import finetuned
from worker.trainer.model import build_model
from worker.trainer.model.parts import build_activation, build_batch_norm
from worker.trainer.model.sharing import share

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
SPEC: TypeAdapter[Any] = TypeAdapter(Model)
Json = dict[str, Any]
Array = np.ndarray[Any, Any]


def build(spec: Json, shape: tuple[int, ...], outputs: int, *, text: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return build_model(SPEC.validate_json(json.dumps(spec)), shape, outputs, text=text)


def layers(*stack: Json) -> Json:
    return {"type": "layers", "layers": list(stack)}


def alone(layer: Json, shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    """The first layer of a stack, in float64, and five samples for it."""
    model = build(layers(layer, {"type": "flatten"}, {"type": "linear", "units": 1}), shape, 1)
    first: nn.Module = model[:1]  # type: ignore[index]  # a Sequential
    return first.double(), torch.randn(5, *shape, dtype=torch.float64)


def weights(model: nn.Module) -> dict[str, Array]:
    return {name: p.detach().double().numpy() for name, p in model.named_parameters()}


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def softplus(x: Array) -> Array:
    return np.asarray(np.log1p(np.exp(x)))


ERF = np.vectorize(math.erf)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
FORMULAS: dict[str, tuple[type[nn.Module] | str, Callable[[Array], Array]]] = {
    "relu": (nn.ReLU, lambda x: np.maximum(x, 0)),
    "gelu": (nn.GELU, lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    "gelu_tanh": (nn.GELU, lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2),
    "silu": (nn.SiLU, lambda x: x * sigmoid(x)),
    "tanh": (nn.Tanh, np.tanh),
    "sigmoid": (nn.Sigmoid, sigmoid),
    "leaky_relu": (nn.LeakyReLU, lambda x: np.where(x > 0, x, 0.01 * x)),
    "elu": (nn.ELU, lambda x: np.where(x > 0, x, np.expm1(x))),
    "relu_squared": ("ReLUSquared", lambda x: np.maximum(x, 0) ** 2),
    "relu6": (nn.ReLU6, lambda x: np.clip(x, 0, 6)),
    "selu": (nn.SELU, lambda x: SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(x))),
    "mish": (nn.Mish, lambda x: x * np.tanh(softplus(x))),
    "softplus": (nn.Softplus, softplus),
    "hardswish": (nn.Hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "identity": (nn.Identity, lambda x: x),
}


@pytest.mark.proves("ARCH-17")
@pytest.mark.proves("ARCH-18", cases=["relu"])
@pytest.mark.proves("ARCH-19", cases=["sigmoid"])
@pytest.mark.proves("ARCH-20", cases=["tanh"])
@pytest.mark.parametrize("kind", get_args(Activation))
def test_activation_is_its_formula_and_its_module(kind: str) -> None:
    module, formula = FORMULAS[kind]
    x = torch.linspace(-8, 8, 401, dtype=torch.float64)
    built = build_activation(kind)  # type: ignore[arg-type]  # one of its values
    assert type(built) is module or type(built).__name__ == module
    np.testing.assert_allclose(built(x).numpy(), formula(x.numpy()), atol=1e-12)
    model = build({"type": "mlp", "hidden_sizes": [4, 4], "activation": kind}, (3,), 2)
    assert [type(part) for part in model.modules() if type(part) is type(built)] == [type(built)] * 2


@pytest.mark.proves("ARCH-20")
def test_tanh_is_that_of_numpy_with_its_slope() -> None:
    x = torch.linspace(-9, 9, 1001, requires_grad=True)
    y = build_activation("tanh")(x)
    np.testing.assert_allclose(y.detach().numpy(), np.tanh(x.detach().double().numpy()), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    np.testing.assert_allclose(gradient.numpy(), 1 / np.cosh(x.detach().double().numpy()) ** 2, rtol=0, atol=3e-7)


@pytest.mark.proves("ARCH-18")
def test_relu_is_exact_and_passes_no_gradient_below_zero() -> None:
    x = torch.randn(1000, requires_grad=True)
    y = build_activation("relu")(x)
    assert torch.equal(y, torch.where(x > 0, x, torch.zeros(())))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, (x > 0).float())


@pytest.mark.proves("ARCH-05")
def test_linear_is_x_times_w_plus_b() -> None:
    module, x = alone({"type": "linear", "units": 4}, (7,))
    w = weights(module)
    np.testing.assert_allclose(module(x).detach().numpy(), x.numpy() @ w["0.weight"].T + w["0.bias"], atol=1e-12)
    assert set(weights(alone({"type": "linear", "units": 4, "bias": False}, (7,))[0])) == {"0.weight"}


CONVS: list[tuple[Json, tuple[int, ...]]] = [
    ({"kernel_size": 3}, (2, 9, 8)),
    ({"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 0], "dilation": [1, 2]}, (2, 9, 8)),
    ({"kernel_size": 3, "padding": "same", "dilation": 2, "bias": False}, (2, 9, 8)),
    ({"kernel_size": 4, "padding": "same"}, (2, 9, 8)),
    ({"kernel_size": 3, "groups": 2, "padding": 1}, (4, 9, 8)),
    ({"kernel_size": 5, "stride": 3, "padding": 2}, (2, 20)),
    ({"kernel_size": 4, "padding": "same", "groups": 2}, (2, 20)),
]


def _convolved(x: Array, w: Array, bias: Any, fields: Json) -> Array:
    """By windows that are unfolded and multiplied, of (n, channels, ...)."""
    extent = x.shape[2:]

    def each(key: str, usual: int) -> list[int]:
        value = fields.get(key, usual)
        return value if isinstance(value, list) else [value] * len(extent)

    kernel, stride, dilation, groups = each("kernel_size", 3), each("stride", 1), each("dilation", 1), fields.get("groups", 1)
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if fields.get("padding") == "same":
        around = [(span // 2, span - span // 2) for span in spans]
    else:
        around = [(p, p) for p in each("padding", 0)]
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    out = [(n - span - 1) // s + 1 for n, span, s in zip(padded.shape[2:], spans, stride, strict=True)]
    made = np.zeros((len(x), len(w), *out))
    for place in product(*(range(n) for n in out)):
        everywhere: Any = (slice(None), slice(None), *place)
        cut: Any = tuple(slice(p * s, p * s + span + 1, d) for p, s, span, d in zip(place, stride, spans, dilation, strict=True))
        parts = np.split(padded[:, :, *cut], groups, 1)
        said = [part.reshape(len(x), -1) @ v.reshape(len(v), -1).T for part, v in zip(parts, np.split(w, groups), strict=True)]
        made[everywhere] = np.concatenate(said, 1) + bias
    return made


@pytest.mark.proves("ARCH-06")
@pytest.mark.parametrize(("fields", "shape"), CONVS, ids=str)
def test_conv_is_unfold_and_matmul(fields: Json, shape: tuple[int, ...]) -> None:
    module, x = alone({"type": "conv", "channels": 6} | fields, shape)
    w = weights(module)
    expected = _convolved(x.numpy(), w["0.weight"], w.get("0.bias", 0.0), fields)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-5)


POOLS: list[tuple[Json, tuple[int, ...]]] = [
    ({"kind": "max"}, (3, 9, 8)),
    ({"kind": "avg", "kernel_size": [3, 2], "stride": 1}, (3, 9, 8)),
    ({"kind": "max", "kernel_size": 3, "stride": 2, "padding": 1}, (3, 9, 8)),
    ({"kind": "avg", "kernel_size": 3, "stride": 2, "padding": [1, 0]}, (3, 9, 8)),
    ({"kind": "max", "kernel_size": 4, "stride": 3}, (3, 20)),
    ({"kind": "avg", "kernel_size": 4}, (3, 20)),
    ({"kind": "adaptive_avg", "output_size": [4, 3]}, (3, 9, 8)),
    ({"kind": "adaptive_max", "output_size": 5}, (3, 20)),
    ({"kind": "adaptive_avg"}, (3, 20)),
    ({"kind": "adaptive_max", "output_size": 2}, (3, 9, 8)),
    ({"kind": "adaptive_avg", "output_size": 6}, (3, 20)),
]


def _pooled(x: Array, fields: Json) -> Array:
    reduce, extent, most = (np.max if "max" in fields["kind"] else np.mean), x.shape[2:], "max" in fields["kind"]

    def each(key: str, usual: Any) -> list[int]:
        value = fields.get(key, usual)
        return value if isinstance(value, list) else [value] * len(extent)

    if fields["kind"].startswith("adaptive"):
        sizes = each("output_size", 1)
        bounds = [[(i * n // size, -(-(i + 1) * n // size)) for i in range(size)] for n, size in zip(extent, sizes, strict=True)]
    else:
        kernel, padding = each("kernel_size", 2), each("padding", 0)
        stride = each("stride", kernel)
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=-np.inf if most else 0.0)
        bounds = [
            [(i * s, i * s + k) for i in range((n + 2 * p - k) // s + 1)]
            for n, k, s, p in zip(extent, kernel, stride, padding, strict=True)
        ]
    made = np.zeros((*x.shape[:2], *map(len, bounds)))
    for place in product(*(range(len(b)) for b in bounds)):
        everywhere: Any = (slice(None), slice(None), *place)
        cut: Any = tuple(slice(*b[i]) for b, i in zip(bounds, place, strict=True))
        window = x[:, :, *cut]
        made[everywhere] = reduce(window.reshape(*window.shape[:2], -1), -1)
    return made


@pytest.mark.proves("ARCH-07")
@pytest.mark.parametrize(("fields", "shape"), POOLS, ids=str)
def test_pool_is_a_reduction_of_windows(fields: Json, shape: tuple[int, ...]) -> None:
    module, x = alone({"type": "pool"} | fields, shape)
    np.testing.assert_allclose(module(x).numpy(), _pooled(x.numpy(), fields), atol=1e-12)
    turned = {"max": "avg", "avg": "max", "adaptive_max": "adaptive_avg", "adaptive_avg": "adaptive_max"}[fields["kind"]]
    other = alone({"type": "pool"} | fields | {"kind": turned}, shape)[0]
    assert other(x).shape == module(x).shape
    assert (other(x) - module(x)).abs().max() > 1e-3


@pytest.mark.proves("ARCH-07")
def test_global_pools_are_over_all_places() -> None:
    for kind, reduce in (("global_avg", np.mean), ("global_max", np.max)):
        module, x = alone({"type": "pool", "kind": kind}, (3, 4, 5))
        np.testing.assert_allclose(module(x).numpy(), reduce(x.numpy(), (2, 3)), atol=1e-12)


@pytest.mark.proves("ARCH-21")
def test_batch_norm_keeps_the_formula_of_its_statistics() -> None:
    norm = build_batch_norm(BatchNorm(momentum=0.3, eps=1e-5), 4).double()
    mean, var = np.zeros(4), np.ones(4)
    for seed in range(3):
        x = torch.randn(6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3 + 2
        y = norm(x).detach().numpy()
        np.testing.assert_allclose(y.mean((0, 2)), 0, atol=1e-10)
        np.testing.assert_allclose(y.var((0, 2)), 1, atol=1e-4)  # eps makes it a little less
        mean = 0.7 * mean + 0.3 * x.numpy().mean((0, 2))
        var = 0.7 * var + 0.3 * x.numpy().var((0, 2), ddof=1)  # unbiased
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, atol=1e-12)  # type: ignore[operator]
        np.testing.assert_allclose(norm.running_var.numpy(), var, atol=1e-12)  # type: ignore[operator]
    x = torch.randn(3, 4, 5, dtype=torch.float64)
    expected = (x.numpy() - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    np.testing.assert_allclose(norm.eval()(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.proves("ARCH-21")
def test_batch_norm_without_statistics_judges_by_the_batch() -> None:
    norm = build_batch_norm(BatchNorm(track_running_stats=False, affine=False), 4).double().eval()
    assert not list(norm.buffers())
    assert not list(norm.parameters())
    x = torch.randn(6, 4, dtype=torch.float64)
    np.testing.assert_allclose(norm(x).numpy(), (x.numpy() - x.numpy().mean(0)) / np.sqrt(x.numpy().var(0) + 1e-5), atol=1e-12)
    assert torch.equal(norm(x[:1]), torch.zeros(1, 4, dtype=torch.float64)), "one sample is its own mean"


NORMS: list[Json] = [
    {"kind": "batch"},
    {"kind": "layer"},
    {"kind": "rms"},
    {"kind": "group", "groups": 2},
    {"kind": "group", "affine": False},
    {"kind": "layer", "affine": False},
]


def _normalized(x: Array, fields: Json) -> Array:
    """Of (n, channels, places), without scale and shift."""
    match fields["kind"]:
        case "batch":
            mean, var = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
        case "layer":
            mean, var = x.mean(1, keepdims=True), x.var(1, keepdims=True)
        case "rms":
            mean, var = np.zeros(()), (x**2).mean(1, keepdims=True)
        case _:
            groups = fields.get("groups", math.gcd(32, x.shape[1]))
            apart = x.reshape(len(x), groups, -1)
            out = (apart - apart.mean(-1, keepdims=True)) / np.sqrt(apart.var(-1, keepdims=True) + 1e-5)
            return np.asarray(out.reshape(x.shape))
    return np.asarray((x - mean) / np.sqrt(var + 1e-5))


@pytest.mark.parametrize("fields", NORMS, ids=str)
@pytest.mark.parametrize("steps", [False, True])
def test_norm_layer_is_its_formula(fields: Json, steps: bool) -> None:
    """Of channels first and of features last."""
    start: list[Json] = [{"type": "rearrange", "to": "steps"}] if steps else []
    model = build(layers(*start, {"type": "norm"} | fields, {"type": "flatten"}, {"type": "linear", "units": 1}), (4, 7), 1)
    norm, x = model[: len(start) + 1].double(), torch.randn(5, 4, 7, dtype=torch.float64)  # type: ignore[index]  # a Sequential
    with torch.no_grad():
        for param in norm.parameters():
            param.uniform_(0.5, 1.5)
    values = [p.detach().numpy().reshape(1, 4, 1) for p in norm.parameters()]
    expected = _normalized(x.numpy(), fields)
    if fields.get("affine", True):
        expected = expected * values[0] + (values[1] if len(values) > 1 else 0)
    else:
        assert not values
    np.testing.assert_allclose(norm(x).detach().numpy(), expected.swapaxes(1, 2) if steps else expected, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(6, 8), (8, 2, 3)])
def test_attention_layer_is_softmax_of_scores(causal: bool, shape: tuple[int, ...]) -> None:
    module, x = alone({"type": "attention", "num_heads": 2, "key_dim": 3, "causal": causal}, shape)
    w = weights(module)
    steps = x.numpy() if len(shape) == 2 else x.numpy().reshape(5, 8, 6).swapaxes(1, 2)

    def heads(name: str) -> Array:
        return (steps @ w[f"0.{name}.weight"].T + w[f"0.{name}.bias"]).reshape(5, 6, 2, 3).swapaxes(1, 2)

    scores = heads("q") @ heads("k").swapaxes(2, 3) / math.sqrt(3)
    scores = np.where(np.tril(np.ones((6, 6))) > 0, scores, -np.inf) if causal else scores
    share_of = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (share_of / share_of.sum(-1, keepdims=True) @ heads("v")).swapaxes(1, 2).reshape(5, 6, 6)
    expected = mixed @ w["0.out.weight"].T + w["0.out.bias"]
    said = module(x).detach().numpy()
    np.testing.assert_allclose(said if len(shape) == 2 else said.reshape(5, 8, 6).swapaxes(1, 2), expected, atol=1e-10)


def _recurrence(cell: str, w: dict[str, Array], name: str, x: Array) -> Array:
    into, over = x @ w[f"weight_ih_{name}"].T + w[f"bias_ih_{name}"], w[f"weight_hh_{name}"]
    units = over.shape[1]
    h, c, said = np.zeros((len(x), units)), np.zeros((len(x), units)), []
    for t in range(x.shape[1]):
        a, u = into[:, t], h @ over.T + w[f"bias_hh_{name}"]
        match cell:
            case "rnn":
                h = np.tanh(a + u)
            case "lstm":
                i, f, g, o = np.split(a + u, 4, -1)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            case _:
                (ar, az, an), (ur, uz, un) = np.split(a, 3, -1), np.split(u, 3, -1)
                h = (1 - sigmoid(az + uz)) * np.tanh(an + sigmoid(ar + ur) * un) + sigmoid(az + uz) * h
        said.append(h)
    return np.stack(said, 1)


@pytest.mark.proves("ARCH-09", cases=["rnn"])
@pytest.mark.proves("ARCH-10", cases=["gru", "lstm"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_recurrent_layer_is_its_recurrence(cell: str) -> None:
    for says, both in product(("steps", "end"), (False, True)):
        module, x = alone({"type": "rnn", "cell": cell, "units": 4, "bidirectional": both, "says": says}, (7, 3))
        w = {name.removeprefix("0.layers."): value for name, value in weights(module).items()}
        there = _recurrence(cell, w, "l0", x.numpy())
        back = _recurrence(cell, w, "l0_reverse", x.numpy()[:, ::-1])[:, ::-1] if both else there[..., :0]
        expected = np.concatenate((there, back), -1) if says == "steps" else np.concatenate((there[:, -1], back[:, 0]), -1)
        np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-10)


@pytest.mark.proves("ARCH-10")
def test_forget_gates_of_a_layer_open_as_told() -> None:
    module, _ = alone({"type": "rnn", "cell": "lstm", "units": 8, "forget_bias": 1.5}, (7, 3))
    w = weights(module)
    np.testing.assert_array_equal((w["0.layers.bias_ih_l0"] + w["0.layers.bias_hh_l0"])[8:16], 1.5)
    assert np.abs(w["0.layers.bias_ih_l0"][:8]).max() < 0.5


def test_text_becomes_vectors_with_places() -> None:
    stack = layers({"type": "embedding", "size": 6, "positions": True}, {"type": "linear", "units": 11})
    model = build(stack, (9,), 11, text=True)
    ids, w = torch.randint(0, 11, (3, 9)), weights(model)
    x = w["0.tokens.weight"][ids.numpy()] + w["0.positions.weight"]
    np.testing.assert_allclose(model(ids).detach().numpy(), x @ w["1.weight"].T + w["1.bias"], atol=1e-5)


@pytest.mark.proves("ARCH-04")
def test_a_stack_is_the_sequence_of_its_layers() -> None:
    stack = layers(
        {"type": "conv", "channels": 8, "padding": 1},
        {"type": "pool"},
        {"type": "attention", "num_heads": 2},
        {"type": "flatten"},
        {"type": "linear", "units": 3},
    )
    model = build(stack, (1, 8, 8), 3)
    assert [type(part).__name__ for part in model.children()] == ["Conv2d", "MaxPool2d", "SelfAttention", "Flatten", "Linear"]
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.proves("ARCH-04")
def test_a_residual_stack_goes_around_by_its_shortcut() -> None:
    inner, around = (
        {"type": "conv", "channels": 6, "stride": 2, "padding": 1},
        {"type": "conv", "channels": 6, "kernel_size": 1, "stride": 2},
    )
    module, x = alone({"type": "residual", "layers": [inner], "shortcut": [around]}, (3, 8, 8))
    w = {name: p.detach() for name, p in module.named_parameters()}
    expected = F.conv2d(x, w["0.layers.0.weight"], w["0.layers.0.bias"], 2, 1)
    expected = expected + F.conv2d(x, w["0.shortcut.0.weight"], w["0.shortcut.0.bias"], 2)
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("stack", "shape", "text", "message"),
    [
        (
            [{"type": "conv", "channels": 4}, {"type": "rnn", "units": 4}],
            (2, 9),
            False,
            r"layers\[1\]: rnn needs \(steps, features\)",
        ),
        (
            [{"type": "rnn", "units": 4, "says": "steps"}, {"type": "conv", "channels": 4}],
            (9, 2),
            False,
            r"layers\[1\]: conv needs \(channels",
        ),
        ([{"type": "attention", "num_heads": 3}], (9, 8), False, r"layers\[0\].num_heads: 3 heads do not divide 8"),
        ([{"type": "flatten"}, {"type": "attention"}], (9, 8), False, r"layers\[1\]: attention reads"),
        ([{"type": "reshape", "shape": [2, 5]}], (9,), False, r"layers\[0\].shape: \(2, 5\) is 10 numbers"),
        ([{"type": "norm", "kind": "group", "groups": 3}], (4, 9), False, r"layers\[0\].groups: 3 groups"),
        (
            [{"type": "conv", "channels": 4, "padding": "same", "stride": 2}],
            (2, 9),
            False,
            r"layers\[0\].padding: padding `same`",
        ),
        ([{"type": "pool", "kernel_size": 2, "padding": 2}], (2, 9), False, r"layers\[0\].padding: a padding"),
        ([{"type": "linear", "units": 4}], (9,), True, r"layers\[0\]: linear reads numbers"),
        ([{"type": "embedding", "size": 4}], (9,), False, r"layers\[0\]: an embedding reads tokens"),
        (
            [{"type": "flatten"}, {"type": "residual", "layers": [{"type": "linear", "units": 2}]}],
            (9,),
            False,
            r"layers\[1\]: a residual",
        ),
    ],
)
def test_a_layer_that_does_not_fit_is_named(stack: list[Json], shape: tuple[int, ...], text: bool, message: str) -> None:
    with pytest.raises(SpecProblem, match=message):
        build(layers(*stack), shape, 4, text=text)


def resnet(block: str, blocks: tuple[int, ...]) -> Json:
    stages = [
        {"channels": channels, "blocks": count, "stride": stride}
        for channels, count, stride in zip((64, 128, 256, 512), blocks, (1, 2, 2, 2), strict=True)
    ]
    return {
        "type": "cnn",
        "block": block,
        "stem": {"channels": 64, "kernel_size": 7, "stride": 2, "pool": True},
        "stages": stages,
    }


@pytest.mark.proves("ARCH-01")
@pytest.mark.parametrize(
    ("block", "blocks", "published"),
    [
        ("basic", (2, 2, 2, 2), 11_689_512),
        ("basic", (3, 4, 6, 3), 21_797_672),
        ("bottleneck", (3, 4, 6, 3), 25_557_032),
    ],
    ids=["resnet18", "resnet34", "resnet50"],
)
def test_residual_networks_have_the_published_parameters(block: str, blocks: tuple[int, ...], published: int) -> None:
    with torch.device("meta"):
        model = build(resnet(block, blocks), (3, 224, 224), 1000)
    assert sum(p.numel() for p in model.parameters()) == published
    assert model(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 1000)


@pytest.mark.proves("ARCH-01")
def test_a_small_residual_network_is_its_formula() -> None:
    """One basic block that halves the picture, written out."""
    spec = {"type": "cnn", "stem": {"channels": 4}, "stages": [{"channels": 6, "stride": 2}], "activation": "relu"}
    model = build(spec, (1, 8, 8), 3).double().eval()
    w, x = dict(model.named_parameters()), torch.randn(2, 1, 8, 8, dtype=torch.float64)

    def normed(h: torch.Tensor) -> torch.Tensor:
        return h / math.sqrt(1 + 1e-5)  # as it starts

    h = F.relu(normed(F.conv2d(x, w["0.weight"], padding=1)))
    inner = F.relu(normed(F.conv2d(h, w["3.layers.0.weight"], stride=2, padding=1)))
    inner = normed(F.conv2d(inner, w["3.layers.3.weight"], padding=1))
    h = F.relu(inner + normed(F.conv2d(h, w["3.shortcut.0.weight"], stride=2)))
    torch.testing.assert_close(model(x), h.mean((2, 3)) @ w["6.weight"].T + w["6.bias"])


@pytest.mark.proves("ARCH-02")
def test_one_block_more_is_as_many_parameters_more_as_a_block_has() -> None:
    def counted(blocks: int) -> tuple[int, int]:
        model = build({"type": "cnn", "stages": [{"channels": 8, "blocks": blocks}], "stem": {"channels": 8}}, (1, 8, 8), 3)
        return sum(p.numel() for p in model.parameters()), sum(type(part).__name__ == "Branch" for part in model.modules())

    (fewer, two), (more, three) = counted(2), counted(3)
    assert (two, three) == (2, 3)
    assert more - fewer == 2 * (8 * 8 * 9 + 2 * 8)


OVERFIT: dict[str, tuple[Json, tuple[int, ...]]] = {
    "mlp": ({"type": "mlp", "hidden_sizes": [64]}, (10,)),
    "layers": (
        layers({"type": "conv", "channels": 16}, {"type": "activation"}, {"type": "flatten"}, {"type": "linear", "units": 4}),
        (2, 6, 6),
    ),
    "cnn": ({"type": "cnn", "stages": [{"channels": 16}, {"channels": 32, "stride": 2}]}, (2, 6, 6)),
    "rnn": ({"type": "rnn", "hidden_size": 48}, (8, 5)),
    "lstm": ({"type": "lstm", "hidden_size": 48}, (8, 5)),
    "gru": ({"type": "gru", "hidden_size": 48}, (8, 5)),
    "attention": (layers({"type": "attention", "num_heads": 2}, {"type": "flatten"}, {"type": "linear", "units": 4}), (8, 6)),
}


@pytest.mark.proves("ARCH-01")
@pytest.mark.parametrize("name", OVERFIT)
def test_it_learns_32_samples_by_heart(name: str) -> None:
    spec, shape = OVERFIT[name]
    model, x = build(spec, shape, 4), torch.randn(32, *shape, generator=torch.Generator().manual_seed(1))
    y = torch.arange(32) % 4
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        if loss < 1e-2:
            return
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()
    raise AssertionError(f"a loss of {loss} after 300 steps")


TWINS: Json = {"type": "mlp", "hidden_sizes": [5, 5, 5], "sharing": [{"source": "2", "target": "4"}]}


@pytest.mark.proves("ARCH-25")
def test_shared_parts_are_one() -> None:
    model = build(TWINS, (5,), 3)
    first, second = model[2], model[4]  # type: ignore[index]  # a Sequential
    assert first.weight is second.weight
    assert first.weight.data_ptr() == second.weight.data_ptr()
    separate = build({k: v for k, v in TWINS.items() if k != "sharing"}, (5,), 3)
    assert sum(p.numel() for p in separate.parameters()) - sum(p.numel() for p in model.parameters()) == 5 * 5 + 5


@pytest.mark.proves("ARCH-25")
def test_the_gradient_of_a_shared_part_is_that_of_both_uses() -> None:
    model, x = build(TWINS, (5,), 3).double(), torch.randn(7, 5, dtype=torch.float64)
    apart = build({k: v for k, v in TWINS.items() if k != "sharing"}, (5,), 3).double()
    apart.load_state_dict({**model.state_dict(), "4.weight": model[2].weight, "4.bias": model[2].bias})  # type: ignore[index]
    for each in (model, apart):
        each(x).square().sum().backward()
    for key in ("weight", "bias"):
        both = getattr(apart[2], key).grad + getattr(apart[4], key).grad  # type: ignore[index]
        torch.testing.assert_close(getattr(model[2], key).grad, both)  # type: ignore[index]


@pytest.mark.proves("ARCH-25")
def test_shared_parts_are_saved_once_and_come_back_shared() -> None:
    model, other = build(TWINS, (5,), 3), build(TWINS, (5,), 3)
    state = copy.deepcopy(model.state_dict())
    assert not any(name.startswith("4.") for name in state)
    with torch.no_grad():
        for param in other.parameters():
            param.normal_()
    other.load_state_dict(state)
    assert other[2].weight is other[4].weight  # type: ignore[index]
    x = torch.randn(3, 5)
    assert torch.equal(model(x), other(x))
    assert copy.deepcopy(model).state_dict().keys() == state.keys()


@pytest.mark.proves("ARCH-25")
def test_a_single_weight_and_several_parts_may_be_shared() -> None:
    model = build({"type": "mlp", "hidden_sizes": [5, 5, 5]}, (5,), 3)
    share(model, [Share(source="0.weight", target="2.weight"), Share(source="2", target="4")])
    assert model[0].weight is model[2].weight is model[4].weight  # type: ignore[index]
    assert model[0].bias is not model[2].bias  # type: ignore[index]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.bias", "6.weight", "6.bias"}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [("2", "9", r"sharing\[0\].target: there are no weights below 9"), ("0", "2", r"sharing\[0\]: 0 and 2 have not the same")],
)
def test_parts_that_cannot_be_shared_are_named(source: str, target: str, message: str) -> None:
    with pytest.raises(SpecProblem, match=message):
        build(TWINS | {"hidden_sizes": [4, 5], "sharing": [{"source": source, "target": target}]}, (5,), 3)


@pytest.mark.proves("REG-05")
def test_dropout_drops_a_share_and_scales_the_rest() -> None:
    module, _ = alone({"type": "dropout", "p": 0.3}, (10,))
    torch.manual_seed(0)
    x = torch.ones(1_000_000)
    y = module(x)
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.003)
    assert torch.equal(y[y != 0], torch.full_like(y[y != 0], 1 / 0.7))
    assert torch.equal(module.eval()(x), x)


@pytest.mark.parametrize("sync", [False, True])
def test_a_held_batch_norm_normalises_by_its_statistics_and_keeps_them(sync: bool) -> None:
    """As torch's own in evaluation; where it is shared by ranks, no rank is asked."""
    torch.manual_seed(0)
    norm, plain = build_batch_norm(BatchNorm(sync=sync), 3), nn.BatchNorm1d(3)
    for one in (norm, plain):
        one(torch.arange(12.0).reshape(4, 3) ** 2)
    finetuned(Finetune(freeze=("1.*",)), nn.Sequential(nn.Linear(3, 3), norm))
    x = torch.randn(5, 3, requires_grad=True)
    said, wanted = norm.train()(x), plain.eval()(x)
    assert torch.equal(said, wanted)
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), plain.buffers(), strict=True))
