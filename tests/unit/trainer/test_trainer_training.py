"""Loss, clipping, durations and early stopping against torch's own and against counting."""

import errno
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import CrossEntropy, MeanSquaredError
from stoker.spec.training import ClipByNorm, ClipByValue, EarlyStopping, Training
from tests.support.late import Late
from worker.trainer.__main__ import judge
from worker.trainer.errors import Diverged, SpecProblem
from worker.trainer.loss import build_loss
from worker.trainer.training import build_clip, build_judge, micro_size, total_steps

class_weight = Late("sklearn.utils.class_weight")


@pytest.mark.proves("LOSS-09")
@pytest.mark.parametrize(
    "spec",
    [
        CrossEntropy(),
        CrossEntropy(temperature=2.0, label_smoothing=0.2),
        CrossEntropy(class_weights=(1.0, 2.0, 0.5, 0.0)),
        CrossEntropy(class_weights="balanced", label_smoothing=0.1),
    ],
    ids=str,
)
def test_summed_loss_over_summed_weights_is_torchs_mean(spec: CrossEntropy) -> None:
    outputs, targets = torch.randn(30, 4), torch.randint(0, 4, (30,))
    loss = build_loss(spec, 4, targets)
    weights = None
    if spec.class_weights == "balanced":
        balanced = class_weight.compute_class_weight("balanced", classes=np.arange(4), y=targets.numpy())
        weights = torch.tensor(balanced, dtype=torch.float32)
    elif spec.class_weights is not None:
        weights = torch.tensor(spec.class_weights)
    expected = F.cross_entropy(outputs / spec.temperature, targets, weights, label_smoothing=spec.label_smoothing)
    got = loss(outputs, targets) / loss.sample_weights(targets).sum()
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_every_token_counts_once() -> None:
    outputs, targets = torch.randn(3, 5, 7), torch.randint(0, 7, (3, 5))
    loss = build_loss(CrossEntropy(), 7, targets)
    got = loss(outputs, targets) / loss.sample_weights(targets).sum()
    assert got.item() == pytest.approx(F.cross_entropy(outputs.transpose(1, 2), targets).item(), rel=1e-5)


def test_squares_are_averaged_over_all_outputs() -> None:
    outputs, targets = torch.randn(6, 3), torch.randn(6, 3)
    loss = build_loss(MeanSquaredError(), 3, targets)
    got = loss(outputs, targets) / loss.sample_weights(targets).sum()
    assert got.item() == pytest.approx(F.mse_loss(outputs, targets).item(), rel=1e-5)


def test_a_loss_that_does_not_fit_the_task_is_refused() -> None:
    with pytest.raises(SpecProblem, match="mse"):
        build_loss(CrossEntropy(), 3, torch.randn(4, 3))
    with pytest.raises(SpecProblem, match="cross_entropy"):
        build_loss(MeanSquaredError(), 3, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(SpecProblem, match="2 weights for 3 classes"):
        build_loss(CrossEntropy(class_weights=(1.0, 1.0)), 3, torch.zeros(4, dtype=torch.int64))


def _params() -> list[nn.Parameter]:
    torch.manual_seed(0)
    params = [nn.Parameter(torch.zeros(n)) for n in (3, 5)]
    for p in params:
        p.grad = torch.randn_like(p) * 3
    return params


@pytest.mark.proves("REG-07")
@pytest.mark.parametrize(("limit", "order"), [(1.0, 2.0), (1.0, 1.0), (2.0, 3.5), (1e6, 2.0)])
def test_clipping_by_norm_is_torchs(limit: float, order: float) -> None:
    ours, theirs = _params(), _params()
    clip = build_clip(ClipByNorm(max_norm=limit, norm_type=order), ours, measured=True)
    clip()
    norm = nn.utils.clip_grad_norm_(theirs, limit, order)
    assert clip.norm().item() == pytest.approx(norm.item(), rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-6, atol=1e-7)


@pytest.mark.proves("REG-08")
def test_clipping_by_value_is_torchs_and_reports_the_norm_before() -> None:
    ours, theirs = _params(), _params()
    before = math.sqrt(sum(float((p.grad**2).sum()) for p in theirs if p.grad is not None))
    clip = build_clip(ClipByValue(value=0.7), ours, measured=True)
    clip()
    nn.utils.clip_grad_value_(theirs, 0.7)
    assert clip.norm().item() == pytest.approx(before, rel=1e-6)
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"max_steps": 9}, 9),
        ({"epochs": 4}, 12),
        ({"max_tokens": 1}, 1),
        ({"max_tokens": 40}, 1),
        ({"max_tokens": 41}, 2),
        ({"max_tokens": 100}, 3),  # an epoch: 10 samples of 10 tokens in steps of 4, 4 and 2
        ({"max_tokens": 101}, 4),
        ({"max_tokens": 240}, 7),
        ({"max_seconds": 5.0}, None),
    ],
)
def test_the_step_that_reaches_the_length_is_the_last(training: dict[str, Any], expected: int | None) -> None:
    assert total_steps(Training(**training, batch_size=4), per_epoch=3, samples=10, tokens_per_sample=10) == expected


def test_portions_that_do_not_divide_are_refused() -> None:
    assert micro_size(Training(epochs=1, batch_size=24, gradient_accumulation_steps=3), 2) == 4
    with pytest.raises(SpecProblem, match="batch_size"):
        micro_size(Training(epochs=1, batch_size=25, micro_batch_size=4), 2)


@pytest.mark.proves("REG-06")
def test_patience_counts_evaluations_that_are_no_better() -> None:
    judge_ = build_judge(EarlyStopping(patience=2, min_delta=0.1), {"validation/loss": "min"})
    seen = []
    for step, value in enumerate((1.0, 0.95, 0.8, math.nan, 0.75)):
        judge_.look(step, {"validation/loss": value}, {"w": torch.tensor([float(step)])})
        seen.append((judge_.best_step, judge_.stale, judge_.patience_is_over))
    assert seen == [(0, 0, False), (0, 1, False), (2, 0, False), (2, 1, False), (2, 2, True)]
    assert judge_.weights["w"].tolist() == [2.0]
    with pytest.raises(SpecProblem, match="validation/loss"):
        build_judge(EarlyStopping(monitor="validation/f1"), {"validation/loss": "min"})


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (Diverged("x"), "nan_loss", 3),
        (torch.OutOfMemoryError("CUDA out of memory"), "cuda_oom", 1),
        (MemoryError(), "host_oom", 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "host_oom", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full", 1),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk_full", 1),
        (ValueError("anything"), "user_error", 1),
    ],
)
def test_failures_have_their_reason(error: BaseException, reason: str, code: int) -> None:
    verdict = judge(error)
    assert (verdict.reason, verdict.exit_code) == (reason, code)
