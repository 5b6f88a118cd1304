"""Every kind of layer and network on paper, against the trainer's own modules: state, FLOPs and kept activations to the byte."""

from typing import Any

import pytest
import torch

from stoker.document.resolve import resolve
from stoker.errors import SpecError
from stoker.facts import DatasetFacts
from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from stoker.spec.model import CNN
from tests.support.plan_cases import ACTIVATIONS, Json, arrays, as_computed, language, pictures, resolved, text
from tests.support.plan_measure import NARROW, batch_of_samples, flops, kept_bytes, loss_of, model_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:TF32 acceleration on top of oneDNN",
    "ignore:Mismatch dtype between input and weight:UserWarning",
    "ignore:Using padding='same' with even kernel:UserWarning",
)
BATCH = 3
PICTURES, SERIES, TEXT = arrays(100, 3, 12, 12), arrays(100, 7, 6), text(10_000)
HEAD: list[Json] = [{"type": "pool", "kind": "global_avg"}, {"type": "linear", "units": 10}]
CONV: Json = {"type": "conv", "channels": 8, "padding": 1}


def stack(*layers: Json) -> Json:
    return {"type": "layers", "layers": [*layers]}


def conv(**more: Any) -> Json:
    return CONV | more


NORMS: dict[str, Json] = {
    "groups": {"kind": "group", "groups": 2},
    "untracked": {"kind": "batch", "track_running_stats": False},
    "neither": {"kind": "batch", "track_running_stats": False, "affine": False},
    **{f"bare-{kind}": {"kind": kind, "affine": False} for kind in ("batch", "layer", "rms", "group")},
}
PICTURE_STACKS: dict[str, list[Json]] = {
    "same": [conv(padding="same"), conv(padding="same", kernel_size=[1, 5], dilation=2), *HEAD],
    "same-even": [conv(padding="same", kernel_size=4), conv(padding="same", kernel_size=[2, 3]), *HEAD],
    "padded-pools": [
        CONV,
        {"type": "pool", "kind": "max", "kernel_size": 3, "stride": 2, "padding": 1},
        {"type": "pool", "kind": "avg", "kernel_size": 3, "stride": 2, "padding": 1},
        *HEAD,
    ],
    "global-max": [CONV, {"type": "pool", "kind": "global_max"}, {"type": "linear", "units": 10}],
    "adaptive": [
        CONV,
        {"type": "pool", "kind": "adaptive_avg", "output_size": [5, 4]},
        CONV,
        {"type": "pool", "kind": "adaptive_max", "output_size": 3},
        CONV,
        {"type": "pool", "kind": "adaptive_avg"},
        {"type": "flatten"},
        {"type": "linear", "units": 10},
    ],
    **{f"norm-{name}": [CONV, {"type": "norm"} | fields, CONV, *HEAD] for name, fields in NORMS.items()},
    "shortcut": [
        CONV,
        {
            "type": "residual",
            "layers": [conv(stride=2, channels=12), {"type": "activation"}, conv(channels=12)],
            "shortcut": [conv(stride=2, channels=12, kernel_size=1, padding=0), {"type": "norm"}],
        },
        *HEAD,
    ],
    "attention": [conv(stride=2), {"type": "pool"}, {"type": "attention", "num_heads": 2}, {"type": "flatten"}, HEAD[1]],
    "attention-wide": [CONV, {"type": "attention", "num_heads": 3, "key_dim": 5, "dropout": 0.1, "bias": False}, *HEAD],
    "reshape": [{"type": "reshape", "shape": [6, 72]}, CONV, *HEAD],
    **{f"activation-{kind}": [CONV, {"type": "activation", "kind": kind}, CONV, *HEAD] for kind in ACTIVATIONS},
}
SERIES_STACKS: dict[str, list[Json]] = {
    "attention": [{"type": "attention", "num_heads": 2}, {"type": "norm", "kind": "layer"}, *HEAD],
    "steps-norms": [
        {"type": "rearrange", "to": "steps"},
        {"type": "norm", "kind": "batch"},
        {"type": "linear", "units": 8},
        {"type": "norm", "kind": "group", "groups": 4},
        {"type": "linear", "units": 8},
        {"type": "norm", "kind": "rms"},
        {"type": "rearrange", "to": "channels"},
        CONV,
        {"type": "pool", "kind": "global_max"},
        {"type": "linear", "units": 10},
    ],
}
RECURRENT: dict[str, list[Json]] = {
    f"{cell}-{'both' if both else 'one'}": [
        {"type": "linear", "units": 10},
        {"type": "rnn", "cell": cell, "units": 48, "num_layers": 2, "bidirectional": both, "says": "steps"},
        {"type": "activation", "kind": "relu"},
        {"type": "rnn", "cell": cell, "units": 48, "bidirectional": both},
        {"type": "linear", "units": 10},
    ]
    for cell in ("rnn", "gru", "lstm")
    for both in (False, True)
}
WRITING: list[Json] = [
    {"type": "embedding", "size": 8, "positions": True},
    {
        "type": "residual",
        "layers": [{"type": "norm", "kind": "layer"}, {"type": "attention", "num_heads": 2, "causal": True}],
    },
    {"type": "linear", "units": 256},
]
NETWORKS: dict[str, Json] = {
    "plain": {"type": "cnn", "block": "plain", "normalization": None, "dropout": 0.1},
    "basic": {"type": "cnn", "stages": [{"channels": 8, "blocks": 2}, {"channels": 16, "stride": 2}]},
    "bottleneck": {
        "type": "cnn",
        "block": "bottleneck",
        "stem": {"channels": 8, "kernel_size": 5, "stride": 2, "pool": True},
        "stages": [{"channels": 4, "blocks": 2}, {"channels": 8, "stride": 2}],
        "normalization": {"type": "group", "groups": 2},
        "input_shape": [3, 16, 9],
        "activation": "silu",
    },
}


def _cases() -> list[Any]:
    found = [pytest.param(pictures(stack(*layers)), PICTURES, id=f"pictures-{n}") for n, layers in PICTURE_STACKS.items()]
    found += [pytest.param(pictures(stack(*layers)), SERIES, id=f"series-{n}") for n, layers in SERIES_STACKS.items()]
    found += [pytest.param(pictures(model), PICTURES, id=f"cnn-{n}") for n, model in NETWORKS.items()]
    return [*found, pytest.param(language(stack(*WRITING)), TEXT, id="text")]


def in_mode(mode: str, spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"precision": spec.precision.model_copy(update={"mode": mode})})


@pytest.mark.parametrize(("spec", "content"), _cases())
@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed", "bf16_pure"])
def test_a_layer_is_what_the_plan_says(spec: JobSpec, content: DatasetFacts, mode: str) -> None:
    spec = in_mode(mode, resolved(spec, content))
    known, model = known_of(spec, content), model_of(spec, content, "cpu")
    tape = draw(spec, known, BATCH)
    tensors = [(w.name.format(i), w.shape) for w in (*tape.weights, *tape.buffers) for i in range(w.copies)]
    assert sorted(tensors) == sorted((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    assert plan(spec, content).parameters.total == sum(p.numel() for p in model.parameters())
    inputs, targets = batch_of_samples(spec, known, BATCH)
    with kept_bytes(model) as kept, torch.autocast("cpu", NARROW.get(mode), enabled=spec.precision.mixed):
        loss_of(spec, known, model(inputs), targets)
    assert tape.activation_bytes == kept.bytes
    if mode == "fp32":
        forward, both = flops(spec, content, BATCH)
        assert plan(spec, content).flops.forward_per_sample_flops * BATCH == forward
        assert plan(spec, content).flops.step_per_sample_flops * BATCH == both


@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_are_nearly_what_the_plan_says(name: str, mode: str) -> None:
    """As for models that are nothing else: state and FLOPs exactly, memory within a few percent."""
    content = arrays(100, 64, 12)
    spec = in_mode(mode, resolved(pictures(stack(*RECURRENT[name])), content))
    known, model = known_of(spec, content), model_of(spec, content, "cpu")
    tape = draw(spec, known, 8)
    assert sorted((w.name, w.shape) for w in tape.weights) == sorted((n, tuple(t.shape)) for n, t in model.state_dict().items())
    inputs, targets = batch_of_samples(spec, known, 8)
    with kept_bytes(model) as kept, torch.autocast("cpu", NARROW.get(mode), enabled=spec.precision.mixed):
        loss_of(spec, known, model(inputs), targets)
    assert draw(as_computed(spec), known, 8).activation_bytes == pytest.approx(kept.bytes, rel=0.05)
    if mode == "fp32":
        with torch.backends.mkldnn.flags(enabled=False):  # its work is not counted
            forward, both = flops(spec, content, 3)
        predicted = plan(spec, content).flops
        assert (predicted.forward_per_sample_flops * 3, predicted.step_per_sample_flops * 3) == (forward, both)


SHARED: dict[str, tuple[JobSpec, DatasetFacts]] = {
    "decoder": (
        language({"num_layers": 3, "hidden_size": 16, "num_heads": 2, "sharing": [{"source": "blocks.0", "target": "blocks.2"}]}),
        TEXT,
    ),
    "mlp": (
        pictures({"type": "mlp", "hidden_sizes": [5, 5, 5], "sharing": [{"source": "3.weight", "target": "5.weight"}]}),
        PICTURES,
    ),
    "backwards": (
        pictures({"type": "mlp", "hidden_sizes": [5, 5, 5], "sharing": [{"source": "5", "target": "3"}]}),
        PICTURES,
    ),
}


@pytest.mark.proves("ARCH-25")
@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_are_counted_once(name: str) -> None:
    spec, content = SHARED[name]
    spec = resolved(spec, content)
    model = model_of(spec, content)
    tape = draw(spec, known_of(spec, content), BATCH)
    assert tape.parameters == plan(spec, content).parameters.total == sum(p.numel() for p in model.parameters())
    tensors = [(w.name.format(i), w.shape) for w in tape.weights for i in range(w.copies)]
    assert sorted(tensors) == sorted((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "target", "pointer"),
    [("9", "3", "/model/sharing/0/source"), ("3", "nothing", "/model/sharing/0/target"), ("1", "3", "/model/sharing/0")],
)
def test_parts_that_cannot_be_shared_are_refused_at_the_plan(source: str, target: str, pointer: str) -> None:
    spec = resolved(
        pictures({"type": "mlp", "hidden_sizes": [5, 5], "sharing": [{"source": source, "target": target}]}), PICTURES
    )
    with pytest.raises(SpecError) as refused:
        plan(spec, PICTURES)
    assert [(each.pointer, each.code) for each in refused.value.findings] == [(pointer, "sharing-parts")]


@pytest.mark.proves("ARCH-03", cases=["resnet50-1000-25557032"])
@pytest.mark.parametrize(
    ("name", "classes", "parameters"),
    [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet20-cifar", 10, 272_474),
        ("resnet56-cifar", 10, 855_770),
    ],
)
def test_presets_are_the_published_residual_networks(name: str, classes: int, parameters: int) -> None:
    side = 32 if name.endswith("cifar") else 224
    document: Any = {
        "task": {"type": "classification", "num_classes": classes},
        "model": {"preset": name},
        "data": {"source": {"type": "arrays", "dataset": "set"}},
        "training": {"epochs": 1, "batch_size": 8},
    }
    content = arrays(10_000, 3, side, side, classes=classes)
    made = resolve(document, content)
    assert plan(made.spec, content).parameters.total == parameters
    assert made.origins["/model/stages/0/channels"] == f"preset:{name}"
    assert isinstance(made.spec.model, CNN)
    assert made.spec.model.preset is None
    wider = resolve(document | {"model": {"preset": name, "activation": "silu"}}, content)
    assert isinstance(wider.spec.model, CNN)
    assert (wider.spec.model.activation, wider.origins["/model/activation"]) == ("silu", "user")
