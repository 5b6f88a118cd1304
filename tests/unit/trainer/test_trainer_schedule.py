"""Schedules against their closed forms at the steps that matter."""

import math
from typing import Any

import pytest

from stoker.spec import Duration
from stoker.spec.schedule import WSD, Constant, Cosine, Step
from worker.trainer.errors import SpecProblem
from worker.trainer.schedule import build_schedule


def test_constant_is_the_peak() -> None:
    rate = build_schedule(Constant(), 0.3, total=None, per_epoch=10)
    assert {rate(k) for k in range(50)} == {0.3}


def test_warmup_reaches_the_peak_at_its_last_step() -> None:
    rate = build_schedule(Constant(warmup_steps=4, warmup_start_factor=0.2), 1.0, total=100, per_epoch=10)
    assert [rate(k) for k in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


def test_warmup_ratio_is_rounded_up_but_not_by_binary_fractions() -> None:
    for ratio, total, steps in ((0.1, 30, 3), (0.1, 31, 4), (0.07, 100, 7), (0.0, 10, 0)):
        rate = build_schedule(Constant(warmup_ratio=ratio), 1.0, total=total, per_epoch=10)
        assert [k for k in range(total) if rate(k) < 1.0] == list(range(max(0, steps - 1)))


def test_cosine_ends_at_min_lr_at_the_last_step() -> None:
    rate = build_schedule(Cosine(warmup_steps=5, min_lr=0.1), 1.0, total=25, per_epoch=10)
    assert rate(5) == 1.0
    assert rate(24) == pytest.approx(0.1)
    for k in range(5, 25):
        assert rate(k) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (k - 5) / 19)) / 2)


@pytest.mark.parametrize("total", [1, 2, 6])
def test_cosine_of_a_very_short_run_is_finite(total: int) -> None:
    rate = build_schedule(Cosine(warmup_steps=min(5, total - 1)), 1.0, total=total, per_epoch=10)
    assert rate(total - 1) == pytest.approx(0.0)


def test_step_drops_after_each_interval_and_stops_at_the_floor() -> None:
    rate = build_schedule(Step(step_size=Duration(epochs=2), gamma=0.5, min_lr=0.2, warmup_steps=3), 1.0, total=100, per_epoch=5)
    assert [rate(k) for k in (3, 12, 13, 22, 23, 33)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.2]


@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_wsd_is_flat_and_then_falls_to_min_lr_at_the_last_step(shape: Any) -> None:
    spec = WSD(warmup_steps=5, decay_steps=10, decay_shape=shape, min_lr=0.1)
    rate = build_schedule(spec, 1.0, total=40, per_epoch=10)
    assert [rate(k) for k in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert {rate(k) for k in range(4, 30)} == {1.0}
    curves = {"linear": lambda t: 1 - t, "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2, "sqrt": lambda t: 1 - t**0.5}
    for k in range(30, 40):
        assert rate(k) == pytest.approx(0.1 + 0.9 * curves[shape]((k - 29) / 10), abs=1e-12)
    assert rate(39) == pytest.approx(0.1)


def test_wsd_decays_over_a_share_of_the_run() -> None:
    def decaying(spec: WSD, total: int) -> int:
        rate = build_schedule(spec, 1.0, total=total, per_epoch=10)
        return sum(rate(k) < 1.0 for k in range(total))

    assert decaying(WSD(), 50) == 10
    assert decaying(WSD(decay_ratio=0.1), 31) == 4
    assert decaying(WSD(decay_ratio=0.0), 31) == 0
    assert decaying(WSD(decay_ratio=1.0), 31) == 31


def test_a_longer_run_has_the_same_rates_up_to_the_decay_of_the_shorter() -> None:
    """So a run that goes on from the stable stretch continues as if it had been planned longer."""
    short, long = (build_schedule(WSD(warmup_steps=3, decay_steps=5), 0.7, total=total, per_epoch=10) for total in (30, 300))
    assert [short(k) for k in range(25)] == [long(k) for k in range(25)]


def test_shapes_that_need_a_total_refuse_runs_that_time_ends() -> None:
    with pytest.raises(SpecProblem, match="max_seconds"):
        build_schedule(Cosine(), 1.0, total=None, per_epoch=5)
    with pytest.raises(SpecProblem, match="max_seconds"):
        build_schedule(WSD(decay_steps=5), 1.0, total=None, per_epoch=5)
    with pytest.raises(SpecProblem, match="warmup_ratio"):
        build_schedule(Constant(warmup_ratio=0.1), 1.0, total=None, per_epoch=5)
    with pytest.raises(SpecProblem, match="step_size"):
        build_schedule(Step(step_size=Duration(seconds=1.0)), 1.0, total=9, per_epoch=5)
