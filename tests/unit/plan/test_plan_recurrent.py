"""Recurrent models: state and FLOPs exactly, memory within a few percent, against the trainer's own models."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.facts import DatasetFacts
from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.spec import JobSpec
from tests.support.plan_cases import Json, arrays, as_computed, language, pictures, resolved, text
from tests.support.plan_measure import batch_of_samples, flops, kept_bytes, loss_of, model_of, peak_of_training

TEXT, SERIES, CURVES = text(10_000), arrays(100, 24, 5), arrays(100, 24)
THOROUGH = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
    pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN"),
]


@st.composite
def recurrent(draw_from: st.DrawFn) -> tuple[JobSpec, DatasetFacts]:
    """Any recurrent model, resolved, of text or numbers."""
    kind, layers = draw_from(st.sampled_from(["rnn", "lstm", "gru"])), draw_from(st.integers(1, 4))
    model: Json = {
        "type": kind,
        "num_layers": layers,
        "hidden_size": draw_from(st.integers(2, 30)),
        "dropout": draw_from(st.sampled_from([0.0, 0.25])) if layers > 1 else 0.0,
        "bias": draw_from(st.booleans()),
    }
    if kind == "lstm" and draw_from(st.booleans()):
        model["proj_size"] = draw_from(st.integers(1, model["hidden_size"] - 1))
    content = draw_from(st.sampled_from([TEXT, SERIES, CURVES]))
    if content is not TEXT:
        return resolved(pictures(model | {"bidirectional": draw_from(st.booleans())}), content), content
    if draw_from(st.booleans()):
        model |= {"tie_embeddings": True, "embedding_size": model.get("proj_size") or model["hidden_size"]}
    else:
        model["embedding_size"] = draw_from(st.sampled_from([None, 7]))
    return resolved(language(model), content), content


@THOROUGH
@given(recurrent())
def test_state_is_exact(case: tuple[JobSpec, DatasetFacts]) -> None:
    spec, content = case
    model = model_of(spec, content)
    assert plan(spec, content).parameters.total == sum(p.numel() for p in model.parameters())
    tape = draw(spec, known_of(spec, content), 3)
    assert sorted((w.name, w.shape) for w in tape.weights) == sorted((n, tuple(t.shape)) for n, t in model.state_dict().items())


@settings(parent=THOROUGH, max_examples=6)
@given(recurrent())
def test_flops_are_exact(case: tuple[JobSpec, DatasetFacts]) -> None:
    """Without oneDNN, whose work PyTorch's counter does not see."""
    spec, content = case
    with torch.backends.mkldnn.flags(enabled=False):
        forward, both = flops(spec, content, 3)
    predicted = plan(spec, content).flops
    assert (predicted.forward_per_sample_flops * 3, predicted.step_per_sample_flops * 3) == (forward, both)


MODELS: dict[str, Json] = {
    "rnn": {"type": "rnn", "num_layers": 2, "dropout": 0.1},
    "gru": {"type": "gru", "num_layers": 2},
    "lstm": {"type": "lstm", "num_layers": 2},
    "projected": {"type": "lstm", "num_layers": 2, "proj_size": 20, "dropout": 0.1},
}


@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed"])
@pytest.mark.parametrize("bidirectional", [None, False, True], ids=["text", "series", "both-ways"])
@pytest.mark.parametrize("name", MODELS)
def test_kept_activations(name: str, bidirectional: bool | None, mode: str) -> None:
    model = MODELS[name] | {"hidden_size": 48}
    if bidirectional is None:
        spec, content = language(model, length=64), TEXT
    else:
        spec, content = pictures(model | {"bidirectional": bidirectional}), arrays(100, 64, 12)
    spec = resolved(spec, content)
    spec = spec.model_copy(update={"precision": spec.precision.model_copy(update={"mode": mode})})
    known = known_of(spec, content)
    built, (inputs, targets) = model_of(spec, content, "cpu"), batch_of_samples(spec, known, 8)
    with kept_bytes(built) as kept, torch.autocast("cpu", torch.bfloat16, enabled=mode != "fp32"):
        loss_of(spec, known, built(inputs), targets)
    assert draw(as_computed(spec), known, 8).activation_bytes == pytest.approx(kept.bytes, rel=0.03)


def steps(batch: int, **more: Any) -> Json:
    return {"training": {"max_steps": 2, "batch_size": batch, **more}}


WORDS = text(100_000)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(
            language({"type": "gru", "hidden_size": 256, "num_layers": 3}, length=64, **steps(64)), id="gru-activations"
        ),
        pytest.param(language({"type": "lstm", "hidden_size": 256}, length=64, **steps(64)), id="lstm-activations"),
        pytest.param(language({"type": "lstm", "hidden_size": 700, "num_layers": 2}, **steps(4)), id="lstm-weights"),
    ],
)
def test_peak_of_a_step(spec: JobSpec) -> None:
    spec = resolved(spec, WORDS)
    memory = plan(spec, WORDS).memory
    measured = peak_of_training(spec, WORDS)
    assert measured > 90e6
    assert memory.fresh_bytes - memory.runtime_bytes - memory.dataset_bytes == pytest.approx(measured, rel=0.1)
