"""Parameters, FLOPs and kept activations of every model family, against the trainer's own models."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.facts import DatasetFacts
from stoker.plan import plan
from stoker.plan.checkpoint import buffers_bytes
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from tests.support.plan_cases import (
    Json,
    arrays,
    classifier,
    decoders,
    encoders,
    job,
    language,
    mlps,
    pictures,
    pictures_of_layers,
    resolved,
    table,
    text,
)
from tests.support.plan_measure import NARROW, batch_of_samples, flops, kept_bytes, loss_of, model_of

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
BATCH = 3
MODES = ["fp32", "bf16_mixed", "fp16_mixed", "bf16_pure", "fp16_pure"]
TABLE, PICTURES, TEXT = table(100, 7), arrays(100, 3, 12, 12), text(10_000)
THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def in_mode(mode: str, spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"precision": spec.precision.model_copy(update={"mode": mode})})


@st.composite
def cases(draw_from: st.DrawFn) -> tuple[JobSpec, DatasetFacts]:
    """Any family, resolved."""
    match draw_from(st.sampled_from(["mlp", "layers", "encoder", "decoder"])):
        case "mlp":
            spec, content = classifier(draw_from(mlps())), draw_from(st.sampled_from([TABLE]))
        case "layers":
            spec, content = pictures(draw_from(pictures_of_layers())), PICTURES
        case "encoder":
            spec, content = language(draw_from(encoders()), task={"type": "masked_lm"}), TEXT
        case _:
            spec, content = language(draw_from(decoders())), TEXT
    return in_mode(draw_from(st.sampled_from(MODES)), resolved(spec, content)), content


def check_state(spec: JobSpec, content: DatasetFacts) -> None:
    model = model_of(spec, content)
    assert plan(spec, content).parameters.total == sum(p.numel() for p in model.parameters())
    tape = draw(spec, known_of(spec, content), BATCH)
    tensors = [(w.name.format(i), w.shape) for w in (*tape.weights, *tape.buffers) for i in range(w.copies)]
    assert sorted(tensors) == sorted((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items())
    assert tape.weight_bytes == sum(p.nbytes for p in model.parameters())
    assert buffers_bytes(tape) == sum(
        model.state_dict()[name].nbytes for name, _ in model.named_buffers() if name in model.state_dict()
    )


def check_kept(spec: JobSpec, content: DatasetFacts) -> None:
    """To the byte."""
    known = known_of(spec, content)
    model = model_of(spec, content, "cpu")
    inputs, targets = batch_of_samples(spec, known, BATCH)
    with kept_bytes(model) as kept, torch.autocast("cpu", NARROW.get(spec.precision.mode), enabled=spec.precision.mixed):
        loss_of(spec, known, model(inputs), targets)
    assert draw(spec, known, BATCH).activation_bytes == kept.bytes


def check_flops(spec: JobSpec, content: DatasetFacts) -> None:
    forward, both = flops(spec, content, BATCH)
    predicted = plan(spec, content).flops
    assert predicted.forward_per_sample_flops * BATCH == forward
    assert predicted.step_per_sample_flops * BATCH == both


@THOROUGH
@given(cases())
def test_state(case: tuple[JobSpec, DatasetFacts]) -> None:
    check_state(*case)


@THOROUGH
@given(cases())
def test_kept_activations(case: tuple[JobSpec, DatasetFacts]) -> None:
    check_kept(*case)


@settings(parent=THOROUGH, max_examples=25)
@given(cases())
def test_flops(case: tuple[JobSpec, DatasetFacts]) -> None:
    spec, content = case
    # PyTorch's counter takes the gradient of a grouped convolution for that of a full one; those are counted by hand below.
    if "groups=2" not in str(spec.model) and "groups=4" not in str(spec.model):
        check_flops(in_mode("fp32", spec), content)


def test_flops_of_a_grouped_convolution() -> None:
    model: Json = {
        "type": "layers",
        "layers": [
            {"type": "conv", "channels": 8, "kernel_size": 1},
            {"type": "conv", "channels": 8, "kernel_size": 3, "groups": 4},
            {"type": "pool", "kind": "global_avg"},
            {"type": "linear", "units": 10},
        ],
    }
    predicted = plan(resolved(pictures(model), PICTURES), PICTURES).flops
    first, second, head = 2 * 8 * 144 * 3, 2 * 8 * 100 * (2 * 9), 2 * 8 * 10
    assert predicted.forward_per_sample_flops == first + second + head
    # the gradient of the samples themselves is not computed
    assert predicted.step_per_sample_flops == 2 * first + 3 * second + 3 * head


def regression(model: Json) -> JobSpec:
    return job(
        task={"type": "regression", "num_outputs": 2},
        model=model,
        data={"source": {"type": "arrays", "dataset": "set@1"}},
        training={"epochs": 1, "batch_size": 8},
    )


@pytest.mark.parametrize(
    ("spec", "content"),
    [
        pytest.param(classifier({"type": "mlp", "hidden_sizes": []}), TABLE, id="linear-model"),
        pytest.param(pictures({"type": "mlp", "hidden_sizes": [5, 6], "dropout": 0.5}), PICTURES, id="mlp-of-pictures"),
        pytest.param(regression({"type": "mlp", "hidden_sizes": [9]}), arrays(100, 5), id="regression"),
        pytest.param(
            regression({"type": "layers", "layers": [{"type": "linear", "units": 2}]}), arrays(100, 5), id="one-linear-layer"
        ),
        pytest.param(
            pictures(
                {
                    "type": "layers",
                    "layers": [
                        {"type": "activation", "kind": "relu"},
                        {"type": "dropout"},
                        {"type": "pool", "kind": "max"},
                        {"type": "conv", "channels": 6, "kernel_size": [3], "stride": [1, 2], "padding": [1]},
                        {"type": "norm", "kind": "rms"},
                        {"type": "pool", "kind": "avg", "kernel_size": [1, 3], "stride": 1},
                        {"type": "linear", "units": 5},
                        {"type": "flatten"},
                        {"type": "norm", "kind": "layer"},
                        {"type": "residual", "layers": [{"type": "residual", "layers": [{"type": "norm", "kind": "batch"}]}]},
                        {"type": "linear", "units": 10, "bias": False},
                    ],
                }
            ),
            PICTURES,
            id="every-layer",
        ),
        pytest.param(
            pictures(
                {
                    "type": "layers",
                    "layers": [
                        {"type": "conv", "channels": 6, "kernel_size": 3},
                        {"type": "norm", "kind": "layer"},
                        {"type": "pool", "kind": "max", "kernel_size": 3, "stride": 2},
                        {"type": "pool", "kind": "avg"},
                        {"type": "pool", "kind": "global_avg"},
                        {"type": "linear", "units": 10},
                    ],
                }
            ),
            arrays(100, 3, 30),
            id="one-dimensional",
        ),
        pytest.param(language({"num_layers": 3, "hidden_size": 30, "num_heads": 3}), TEXT, id="gpt"),
        pytest.param(
            language(
                {
                    "num_layers": 11,
                    "hidden_size": 24,
                    "num_heads": 6,
                    "num_kv_heads": 2,
                    "qk_norm": True,
                    "position": {"type": "rope"},
                    "normalization": {"type": "rms"},
                    "gated_ffn": True,
                    "activation": "silu",
                    "bias": False,
                    "tie_embeddings": False,
                }
            ),
            TEXT,
            id="llama-like",
        ),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_named_cases(spec: JobSpec, content: DatasetFacts, mode: str) -> None:
    spec = in_mode(mode, resolved(spec, content))
    check_state(spec, content)
    check_kept(spec, content)
    if mode == "fp32":
        check_flops(spec, content)
