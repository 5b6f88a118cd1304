"""What a loss keeps for the backward pass, to the byte, and what a large vocabulary costs when its logits come in parts."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from stoker.plan import plan
from stoker.plan.draw import draw
from stoker.plan.known import known_of
from stoker.plan.loss import play_loss
from stoker.plan.tape import Tape
from stoker.spec.loss import (
    BinaryCrossEntropy,
    CrossEntropy,
    Focal,
    GaussianNLL,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    NegativeLogLikelihood,
    head_width,
)
from tests.support.plan_cases import job, language, table, text
from tests.support.plan_measure import kept_bytes, model_of
from worker.trainer.loss import build_loss, build_weighted_loss, in_chunks
from worker.trainer.runtime.objective import Objective

N, WIDTH = 12, 6
OF_CLASSES: list[Loss] = [
    CrossEntropy(),
    CrossEntropy(temperature=2.0),
    CrossEntropy(label_smoothing=0.1),
    CrossEntropy(class_weights=(1.0,) * WIDTH),
    CrossEntropy(z_loss=0.1),
    CrossEntropy(z_loss=0.1, temperature=2.0, class_weights=(1.0,) * WIDTH),
    NegativeLogLikelihood(),
    Focal(gamma=0.0),
    Focal(),
    Focal(alpha=0.5, gamma=0.0),
    Focal(alpha=(0.5,) * WIDTH),
]
OF_NUMBERS: list[Loss] = [MeanSquaredError(), MeanAbsoluteError(), Huber(), GaussianNLL()]
OF_LABELS: list[Loss] = [BinaryCrossEntropy(), BinaryCrossEntropy(pos_weight=2.0), Focal(gamma=0.0), Focal(alpha=0.25)]


def _case(loss: Loss, kind: str) -> tuple[torch.Tensor, int]:
    """Targets, and the width of the head."""
    if kind == "classes":
        return torch.randint(0, WIDTH, (N,)), WIDTH
    numbers = torch.randn(N, WIDTH)
    return (numbers > 0).float() if kind == "labels" else numbers, head_width(loss, WIDTH)


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    ("loss", "kind"),
    [(loss, "classes") for loss in OF_CLASSES]
    + [(loss, "numbers") for loss in OF_NUMBERS]
    + [(loss, "labels") for loss in OF_LABELS],
    ids=str,
)
def test_what_a_loss_keeps(loss: Loss, kind: str, weighted: bool, mixed: bool) -> None:
    targets, width = _case(loss, kind)
    if weighted:
        targets = torch.cat((targets.float().reshape(N, -1), torch.rand(N, 1)), 1)
        module: nn.Module = build_weighted_loss(loss, WIDTH, targets, classes=kind == "classes")
    else:
        module = build_loss(loss, WIDTH, targets)
    outputs = torch.randn(N, width, dtype=torch.bfloat16 if mixed else torch.float32, requires_grad=True) * 1
    with kept_bytes(module) as kept, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        module(outputs, targets)
    tape = Tape(N, mixed=mixed)
    play_loss(tape, loss, tape.made((width,), 2 if mixed else 4), labels=kind == "labels", weighted=weighted)
    assert tape.activation_bytes == kept.bytes


def test_a_variance_doubles_the_head() -> None:
    spec = job(
        task={"type": "regression", "num_outputs": 1, "target": "y"},
        model={"type": "mlp", "hidden_sizes": [8]},
        data={"source": {"type": "csv", "dataset": "set@1", "columns": ["x0", "x1"]}},
        loss={"type": "gaussian_nll"},
        training={"epochs": 1, "batch_size": 8},
    )
    content = table(100, 2)
    assert plan(spec, content).parameters.total == sum(p.numel() for p in model_of(spec, content).parameters()) == 3 * 8 + 9 * 2


@pytest.mark.proves("LOSS-03")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_logits_in_parts_need_the_memory_that_is_planned(tied: bool) -> None:
    model = {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "tie_embeddings": tied}
    peaks, planned = [], []
    for chunk in (None, 64):
        spec = language(
            model,
            length=64,
            data={
                "source": {"type": "text", "dataset": "set@1"},
                "tokenizer": {"type": "bpe", "vocab_size": 8192},
                "sequence": {"length": 64},
                "split": {"strategy": "contiguous"},
            },
            loss={"type": "cross_entropy", "chunk_tokens": chunk},
            training={"epochs": 1, "batch_size": 16},
            evaluation={"batch_size": 1},
        )
        content = text(100_000)
        known = known_of(spec, content)
        tape = draw(spec, known, 16)
        planned.append(tape.high + tape.largest_weight)
        peaks.append(_peak(spec, model_of(spec, content, "cpu"), known.outputs))
    saved, expected = peaks[0] - peaks[1], planned[0] - planned[1]
    assert peaks[1] < peaks[0] / 4
    assert abs(saved - expected) < 0.1 * expected
    assert planned[1] == pytest.approx(peaks[1], rel=0.35)


def _peak(spec: object, model: nn.Module, vocabulary: int) -> int:
    """Most bytes at once in a forward and backward pass."""
    ids = torch.randint(0, vocabulary, (16, 64))
    loss: Loss = spec.loss  # type: ignore[attr-defined]  # a JobSpec
    objective = in_chunks(loss, Objective(model, build_loss(loss, vocabulary, ids)))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        objective(ids, ids).backward()
    held = most = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most
