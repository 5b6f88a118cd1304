"""Schedules against their closed forms at the steps that matter."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from stoker.spec import Duration
from stoker.spec.schedule import (
    WSD,
    Constant,
    Cosine,
    Cyclic,
    Exponential,
    MultiStep,
    OneCycle,
    Plateau,
    Polynomial,
    Restarts,
    Schedule,
    Step,
)
from worker.trainer.errors import SpecProblem
from worker.trainer.schedule import build_schedule


def test_constant_is_the_peak() -> None:
    rate = build_schedule(Constant(), 0.3, total=None, per_epoch=10).rate
    assert {rate(k) for k in range(50)} == {0.3}


@pytest.mark.proves("SCHED-07")
def test_warmup_reaches_the_peak_at_its_last_step() -> None:
    rate = build_schedule(Constant(warmup_steps=4, warmup_start_factor=0.2), 1.0, total=100, per_epoch=10).rate
    assert [rate(k) for k in range(5)] == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.proves("SCHED-07")
def test_warmup_ratio_is_rounded_up_but_not_by_binary_fractions() -> None:
    for ratio, total, steps in ((0.1, 30, 3), (0.1, 31, 4), (0.07, 100, 7), (0.0, 10, 0)):
        rate = build_schedule(Constant(warmup_ratio=ratio), 1.0, total=total, per_epoch=10).rate
        assert [k for k in range(total) if rate(k) < 1.0] == list(range(max(0, steps - 1)))


@pytest.mark.proves("SCHED-04", "SCHED-09")
def test_cosine_ends_at_min_lr_at_the_last_step() -> None:
    rate = build_schedule(Cosine(warmup_steps=5, min_lr=0.1), 1.0, total=25, per_epoch=10).rate
    assert rate(5) == 1.0
    assert rate(24) == pytest.approx(0.1)
    for k in range(5, 25):
        assert rate(k) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * (k - 5) / 19)) / 2)


@pytest.mark.parametrize("total", [1, 2, 6])
def test_cosine_of_a_very_short_run_is_finite(total: int) -> None:
    rate = build_schedule(Cosine(warmup_steps=min(5, total - 1)), 1.0, total=total, per_epoch=10).rate
    assert rate(total - 1) == pytest.approx(0.0)


@pytest.mark.proves("SCHED-02", "SCHED-09")
def test_step_drops_after_each_interval_and_stops_at_the_floor() -> None:
    rate = build_schedule(
        Step(step_size=Duration(epochs=2), gamma=0.5, min_lr=0.2, warmup_steps=3), 1.0, total=100, per_epoch=5
    ).rate
    assert [rate(k) for k in (3, 12, 13, 22, 23, 33)] == [1.0, 1.0, 0.5, 0.5, 0.25, 0.2]


@pytest.mark.proves("SCHED-01", "SCHED-09")
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_wsd_is_flat_and_then_falls_to_min_lr_at_the_last_step(shape: Any) -> None:
    spec = WSD(warmup_steps=5, decay_steps=10, decay_shape=shape, min_lr=0.1)
    rate = build_schedule(spec, 1.0, total=40, per_epoch=10).rate
    assert [rate(k) for k in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert {rate(k) for k in range(4, 30)} == {1.0}
    curves: dict[str, Callable[[float], float]] = {
        "linear": lambda t: 1 - t,
        "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
        "sqrt": lambda t: 1 - t**0.5,
    }
    for k in range(30, 40):
        assert rate(k) == pytest.approx(0.1 + 0.9 * curves[shape]((k - 29) / 10), abs=1e-12)
    assert rate(39) == pytest.approx(0.1)


def test_wsd_decays_over_a_share_of_the_run() -> None:
    def decaying(spec: WSD, total: int) -> int:
        rate = build_schedule(spec, 1.0, total=total, per_epoch=10).rate
        return sum(rate(k) < 1.0 for k in range(total))

    assert decaying(WSD(), 50) == 10
    assert decaying(WSD(decay_ratio=0.1), 31) == 4
    assert decaying(WSD(decay_ratio=0.0), 31) == 0
    assert decaying(WSD(decay_ratio=1.0), 31) == 31


def test_a_longer_run_has_the_same_rates_up_to_the_decay_of_the_shorter() -> None:
    """So a run that goes on from the stable stretch continues as if it had been planned longer."""
    short, long = (build_schedule(WSD(warmup_steps=3, decay_steps=5), 0.7, total=total, per_epoch=10).rate for total in (30, 300))
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


def steps(count: int) -> Duration:
    return Duration(steps=count)


def rates(spec: Schedule, total: int, *, peak: float = 1.0, per_epoch: int = 5) -> list[float]:
    rate = build_schedule(spec, peak, total=total, per_epoch=per_epoch).rate
    return [rate(k) for k in range(total)]


def torchs(make: Callable[[torch.optim.Optimizer], Any], total: int, peak: float = 1.0) -> list[tuple[float, float]]:
    """Learning rate and momentum of each step, as PyTorch's own schedulers set them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak, momentum=0.5)
    scheduler, seen = make(optimizer), []
    for _ in range(total):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.proves("SCHED-02")
def test_step_decay_as_measured() -> None:
    assert rates(Step(step_size=steps(2), gamma=0.5), 6) == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.proves("SCHED-02", "SCHED-09")
def test_milestones_are_steps_of_the_run() -> None:
    spec = MultiStep(milestones=(steps(4), Duration(epochs=2)), gamma=0.1, min_lr=0.02, warmup_steps=2)
    np.testing.assert_allclose(rates(spec, 14), [0.5, 1, 1, 1, *[0.1] * 6, *[0.02] * 4], rtol=0, atol=1e-12)


@pytest.mark.proves("SCHED-03", "SCHED-09")
def test_exponential_decay() -> None:
    k = np.arange(40)
    np.testing.assert_allclose(rates(Exponential(gamma=0.9, every=steps(1)), 40), 0.9**k, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rates(Exponential(gamma=0.5), 40, per_epoch=8), 0.5 ** (k / 8), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        rates(Exponential(gamma=0.9, every=steps(1), min_lr=0.3), 40), np.maximum(0.9**k, 0.3), rtol=0, atol=1e-12
    )


@pytest.mark.proves("SCHED-04")
def test_cosine_restarts() -> None:
    k = np.arange(70)
    plain = 0.1 + 0.9 * (1 + np.cos(np.pi * (k % 10) / 10)) / 2
    np.testing.assert_allclose(rates(Cosine(min_lr=0.1, restarts=Restarts(t_0=steps(10))), 70), plain, rtol=0, atol=1e-12)
    starts, lengths = np.repeat([0, 10, 30], [10, 20, 40]), np.repeat([10, 20, 40], [10, 20, 40])
    longer = (1 + np.cos(np.pi * (k - starts) / lengths)) / 2
    np.testing.assert_allclose(rates(Cosine(restarts=Restarts(t_0=Duration(epochs=2), t_mult=2)), 70), longer, rtol=0, atol=1e-12)


@pytest.mark.proves("SCHED-09")
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_ends_at_min_lr_at_the_last_step(power: float) -> None:
    expected = 0.1 + 0.9 * (1 - np.arange(30) / 29) ** power
    np.testing.assert_allclose(rates(Polynomial(power=power, min_lr=0.1), 30), expected, rtol=0, atol=1e-12)


@pytest.mark.proves("SCHED-05")
def test_the_triangle_of_a_cycle() -> None:
    spec = Cyclic(base_lr=0.1, max_lr=0.5, step_size_up=steps(4), step_size_down=steps(2))
    expected = [0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.2]
    np.testing.assert_allclose(rates(spec, 8), expected, rtol=0, atol=1e-12)
    assert rates(Cyclic(step_size_up=steps(2)), 3, peak=2.0) == pytest.approx([0.2, 1.1, 2.0])


@pytest.mark.proves("SCHED-05")
@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cycles_are_those_of_torch(mode: Any) -> None:
    spec = Cyclic(
        base_lr=0.1, max_lr=0.5, step_size_up=steps(5), step_size_down=steps(3), mode=mode, gamma=0.97, cycle_momentum=True
    )
    course = build_schedule(spec, 1.0, total=40, per_epoch=5)
    assert course.momentum is not None
    ours = [(course.rate(k), course.momentum(k)) for k in range(40)]
    theirs = torchs(
        lambda optimizer: torch_schedules.CyclicLR(
            optimizer, 0.1, 0.5, 5, 3, mode=mode, gamma=0.97, base_momentum=0.85, max_momentum=0.95
        ),
        40,
    )
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.proves("SCHED-01")
@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("phases", [2, 3])
def test_one_cycle_is_that_of_torch(strategy: Any, phases: int) -> None:
    spec = OneCycle(
        pct_start=0.25,
        anneal_strategy=strategy,
        div_factor=10,
        final_div_factor=100,
        three_phase=phases == 3,
        cycle_momentum=True,
    )
    course = build_schedule(spec, 2.0, total=40, per_epoch=5)
    assert course.momentum is not None
    ours = [(course.rate(k), course.momentum(k)) for k in range(40)]
    theirs = torchs_one_cycle(spec, 40)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert ours[-1][0] == pytest.approx(2.0 / 10 / 100)
    assert max(rate for rate, _ in ours) == 2.0


def torchs_one_cycle(spec: OneCycle, total: int) -> list[tuple[float, float]]:
    """Its last step is the last that it allows."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.5)
    scheduler = torch_schedules.OneCycleLR(
        optimizer,
        2.0,
        total,
        pct_start=spec.pct_start,
        anneal_strategy=spec.anneal_strategy,
        div_factor=spec.div_factor,
        final_div_factor=spec.final_div_factor,
        three_phase=spec.three_phase,
    )
    seen = []
    for k in range(total):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if k + 1 < total:
            scheduler.step()
    return seen


@pytest.mark.parametrize("total", [1, 2, 3])
def test_one_cycle_of_a_very_short_run_is_finite(total: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(OneCycle(three_phase=True), total))


EVERY: dict[str, Schedule] = {
    "constant": Constant(warmup_steps=4),
    "cosine": Cosine(warmup_steps=4, min_lr=0.1),
    "step": Step(warmup_steps=4, step_size=steps(6), gamma=0.3, min_lr=0.1),
    "multistep": MultiStep(warmup_steps=4, milestones=(steps(9), steps(20)), gamma=0.3, min_lr=0.1),
    "exponential": Exponential(warmup_steps=4, gamma=0.5, min_lr=0.1),
    "polynomial": Polynomial(warmup_steps=4, min_lr=0.1),
    "wsd": WSD(warmup_steps=4, decay_steps=10, min_lr=0.1),
}


@pytest.mark.proves("SCHED-01", "SCHED-07", "SCHED-09")
@pytest.mark.parametrize("kind", EVERY)
def test_a_rise_to_the_peak_and_no_rise_after_it(kind: str) -> None:
    seen = rates(EVERY[kind], 40)
    np.testing.assert_allclose(seen[:4], [0.25, 0.5, 0.75, 1.0], rtol=0, atol=1e-12)
    assert seen[4] <= 1.0
    assert all(after <= before for before, after in pairwise(seen[3:]))
    if kind != "constant":
        assert seen[-1] == pytest.approx(0.1, abs=1e-12)


@pytest.mark.proves("SCHED-07")
@pytest.mark.parametrize(("spec", "first"), [(Cyclic(warmup_steps=4, base_lr=0.2), 0.2), (OneCycle(warmup_steps=4), 0.04)])
def test_cycles_begin_where_the_warmup_ends(spec: Schedule, first: float) -> None:
    np.testing.assert_allclose(rates(spec, 40)[:5], first * np.array([0.25, 0.5, 0.75, 1.0, 1.0]), rtol=0, atol=1e-12)


MODES: dict[str, Any] = {"validation/loss": "min", "validation/accuracy": "max"}


def heard(spec: Plateau, metrics: list[float], *, resumed_at: int | None = None) -> list[float]:
    """The rate of each step, with an evaluation after it."""
    course = build_schedule(spec, 1.0, total=None, per_epoch=5, modes=MODES)
    seen = []
    for step, value in enumerate(metrics):
        seen.append(course.rate(step))
        course.look(step + 1, {"validation/loss": value, "validation/accuracy": -value})
        if step == resumed_at:
            kept = {name: part.values() for name, part in course.part.stateful.items()}
            course = build_schedule(spec, 1.0, total=None, per_epoch=5, modes=MODES)
            for name, part in course.part.stateful.items():
                part.load({}, kept[name])
    return seen


@pytest.mark.proves("SCHED-06")
def test_a_plateau_lowers_the_rate_as_measured() -> None:
    assert heard(Plateau(factor=0.5, patience=1), [1.0] * 7) == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


METRICS = [3.0, 2.0, 2.0, 2.1, 1.9, 1.9, 1.9, 1.9, 1.8999, 5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.proves("SCHED-06")
@pytest.mark.parametrize(
    "spec",
    [
        Plateau(factor=0.5, patience=0),
        Plateau(factor=0.5, patience=2),
        Plateau(factor=0.5, patience=1, cooldown=2),
        Plateau(factor=0.5, patience=1, threshold=0.06, threshold_mode="rel"),
        Plateau(factor=0.5, patience=1, threshold=0.15, threshold_mode="abs"),
        Plateau(factor=0.3, patience=0, min_lr=0.05),
        Plateau(factor=0.5, patience=1, mode="max"),
    ],
    ids=["patience-0", "patience-2", "cooldown", "relative", "absolute", "floor", "max"],
)
def test_a_plateau_is_that_of_torch_and_survives_a_resume(spec: Plateau) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch_schedules.ReduceLROnPlateau(
        optimizer,
        spec.mode or "min",
        factor=spec.factor,
        patience=spec.patience,
        threshold=spec.threshold,
        threshold_mode=spec.threshold_mode,
        cooldown=spec.cooldown,
        min_lr=spec.min_lr,
    )
    expected = []
    for value in METRICS:
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step(value)
    assert len(set(expected)) > 2
    np.testing.assert_allclose(heard(spec, METRICS), expected, rtol=0, atol=1e-12)
    for moment in range(len(METRICS)):
        assert heard(spec, METRICS, resumed_at=moment) == heard(spec, METRICS)


@pytest.mark.proves("SCHED-08")
def test_which_metric_is_watched_says_when_the_rate_falls() -> None:
    spec = Plateau(factor=0.5, patience=1)
    falling = [5.0, 4.0, 3.0, 2.0, 2.0, 2.0]
    assert heard(spec, falling) == [1, 1, 1, 1, 1, 1]
    accuracy = spec.model_copy(update={"monitor": "validation/accuracy", "mode": "min"})  # which only rises
    assert heard(accuracy, falling) == [1, 1, 1, 0.5, 0.5, 0.25]


def test_evaluations_during_the_warmup_do_not_count_against_the_metric() -> None:
    assert heard(Plateau(factor=0.5, patience=0, warmup_steps=4), [1.0] * 7) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0.5, 0.25])


def test_a_value_that_is_no_number_is_no_improvement() -> None:
    assert heard(Plateau(factor=0.5, patience=1), [math.nan] * 4) == [1, 1, 0.5, 0.5]


def test_a_metric_that_is_not_evaluated_is_refused() -> None:
    with pytest.raises(SpecProblem, match="validation/f1 is not evaluated"):
        build_schedule(Plateau(monitor="validation/f1"), 1.0, total=9, per_epoch=5, modes=MODES)


def test_groups_get_their_share_of_the_rate_and_the_momentum() -> None:
    course = build_schedule(Cyclic(base_lr=0.0, step_size_up=steps(2), cycle_momentum=True), 1.0, total=9, per_epoch=5)
    groups: list[dict[str, Any]] = [
        {"scale": 1.0, "momentum": 0.5},
        {"scale": 0.1, "betas": (0.5, 0.999)},
        {"scale": 0.0},
    ]
    course.steer(groups, course.rate(1), 1)
    assert groups == [
        {"scale": 1.0, "lr": 0.5, "momentum": pytest.approx(0.9)},
        {"scale": 0.1, "lr": 0.05, "betas": (pytest.approx(0.9), 0.999)},
        {"scale": 0.0, "lr": 0.0},
    ]
