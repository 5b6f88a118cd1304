"""Averages of weights against their closed forms and PyTorch's own."""

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from stoker.spec.base import Duration
from stoker.spec.training.average import EMA, SWA
from worker.trainer.errors import SpecProblem
from worker.trainer.model.parts import BatchNormAny
from worker.trainer.runtime.world import World
from worker.trainer.training.average import Averaged, InTurn, NoAverage, build_average, in_run, settled_rate
from worker.trainer.training.statistics import renew

ALONE = World(0, 1, torch.device("cpu"), data_index=0, data_parts=1)
STEPS = in_run(10, 100)


def made(ema: EMA | None, swa: SWA | None, model: nn.Module, statistics: Callable[[], None] = lambda: None) -> Averaged:
    average, part = build_average(ema, swa, model, steps=STEPS, statistics=statistics)
    assert isinstance(average, Averaged)
    assert part.stateful == {"average": average}
    return average


def walk(model: nn.Module, steps: int, seed: int = 0) -> Iterator[int]:
    """Random weights after each step."""
    draw = torch.Generator().manual_seed(seed)
    for step in range(steps):
        with torch.no_grad():
            for param in model.parameters():
                param.copy_(torch.randn(param.shape, generator=draw, dtype=torch.float64).to(param.dtype))
        yield step


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("start", "every"), [(None, 1), (Duration(steps=7), 3), (Duration(epochs=1), 2)])
def test_an_exponential_average_is_its_closed_form(decay: float, start: Duration | None, every: int) -> None:
    model = nn.Linear(5, 3).double()
    average, seen = made(EMA(decay=decay, start=start, every=every), None, model), []
    begin = 1 if start is None else start.steps or 10
    for step in walk(model, 40):
        average(step)
        if step + 1 >= begin and (step + 1 - begin) % every == 0:
            seen.append(flat(model))
    n = len(seen) - 1
    expected = decay**n * seen[0] + sum((1 - decay) * decay ** (n - i) * seen[i] for i in range(1, n + 1))
    with average.used():
        torch.testing.assert_close(flat(model), expected, rtol=0, atol=1e-9)


def test_a_warm_average_begins_with_a_short_memory() -> None:
    model = nn.Linear(2, 2).double()
    average = made(EMA(decay=0.9, warmup=True), None, model)
    expected = torch.zeros(())
    for step in walk(model, 200):
        average(step)
        keep = min(0.9, (1 + step) / (10 + step))
        expected = flat(model) if step == 0 else keep * expected + (1 - keep) * flat(model)
    with average.used():
        torch.testing.assert_close(flat(model), expected, rtol=0, atol=1e-9)


def test_a_mean_is_the_mean() -> None:
    model = nn.Linear(5, 3).double()
    average, seen = made(None, SWA(start=Duration(steps=5), every=Duration(steps=4)), model), []
    for step in walk(model, 30):
        average(step)
        if step + 1 in (5, 9, 13, 17, 21, 25, 29):
            seen.append(flat(model))
    with average.used():
        torch.testing.assert_close(flat(model), torch.stack(seen).mean(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_averages_are_those_of_pytorch(decay: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    ema, mean = made(EMA(decay=decay), None, model), made(None, SWA(start=Duration(steps=1), every=Duration(steps=1)), model)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)), AveragedModel(model)
    for step in walk(model, 25):
        ema(step)
        mean(step)
        for other in theirs:
            other.update_parameters(model)
    for mine, other in zip((ema, mean), theirs, strict=True):
        with mine.used():
            torch.testing.assert_close(flat(model), flat(other), rtol=0, atol=1e-6)


def _fails_within(average: Averaged, model: nn.Linear) -> bool:
    """Whether a judgement that raises saw other weights."""
    before, other = model.weight.detach().clone(), False
    try:
        with average.used():
            other = not torch.equal(model.weight, before)
            raise KeyError
    except KeyError:
        return other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_come_back_to_the_bit(dtype: torch.dtype) -> None:
    model = nn.Linear(6, 6).to(dtype)
    average = made(EMA(decay=0.7), None, model)
    for step in walk(model, 4):
        average(step)
    before, kept = copy.deepcopy(model.state_dict()), {k: v.clone() for k, v in average.tensors().items()}
    assert _fails_within(average, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, kept[name]) for name, value in average.tensors().items())


def test_small_shares_of_narrow_weights_add_up() -> None:
    """A thousandth of a weight is less than bfloat16 tells apart, so the average is kept in float32."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    average = made(EMA(decay=0.999), None, model)
    for step in range(2000):
        with torch.no_grad():
            model.weight.fill_(0.0 if step == 0 else 1.0)
        average(step)
    assert average.tensors()["weight"].dtype == torch.float32
    assert average.tensors()["weight"].item() == pytest.approx(1 - 0.999**1999, abs=1e-4)


def _batches() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(size, 6, generator=draw) for size in (8, 8, 5)]


def test_statistics_of_batch_norm_are_those_of_update_bn() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), BatchNormAny(4), nn.ReLU(), nn.Linear(4, 2), BatchNormAny(2))
    statistics = {"calls": 0}

    def compute() -> None:
        statistics["calls"] += 1
        renew(model, model, _batches(), nullcontext, ALONE)

    average = made(None, SWA(start=Duration(steps=1), every=Duration(steps=1)), model, compute)
    theirs = AveragedModel(model)
    for step in walk(model, 3):
        model(torch.randn(9, 6))  # moves the statistics of the weights themselves
        average(step)
        theirs.update_parameters(model)
    own = copy.deepcopy(model.state_dict())
    update_bn(_batches(), theirs)
    noise = torch.get_rng_state()
    for _ in range(2):
        with average.used():
            for name, value in theirs.module.state_dict().items():
                torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert statistics["calls"] == 1  # once for each average
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert [m.momentum for m in model.modules() if isinstance(m, BatchNormAny)] == [0.1, 0.1]


def test_an_exponential_average_takes_the_buffers_as_they_are() -> None:
    model = nn.Sequential(BatchNormAny(3))
    average = made(EMA(decay=0.5), None, model)
    for step in walk(model, 3):
        model(torch.randn(4, 3))
        average(step)
    before = model[0].running_mean.clone()
    with average.used():
        assert torch.equal(model[0].running_mean, before)
    assert set(average.tensors()) == {"0.weight", "0.bias"}


def test_before_it_begins_the_weights_are_judged() -> None:
    model = nn.Linear(2, 2)
    average = made(EMA(start=Duration(steps=50)), None, model)
    for step in walk(model, 3):
        average(step)
    before = flat(model)
    with average.used():
        assert torch.equal(flat(model), before)
    average.end(restored=False)
    assert torch.equal(flat(model), before)
    assert average.tensors() == {}


@pytest.mark.parametrize("ended", [False, True])
def test_an_average_goes_on_where_another_left(ended: bool) -> None:
    """Also where the run had ended and the model was saved as the average."""
    model, again = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    whole = made(EMA(decay=0.8), None, model)
    weights = []
    for step in walk(model, 12):
        whole(step)
        weights.append(copy.deepcopy(model.state_dict()))
    first, second = made(EMA(decay=0.8), None, again), None
    for step in range(6):
        again.load_state_dict(weights[step])
        first(step)
    if ended:
        first.end(restored=False)
        with first.used():
            assert not torch.equal(again.weight, weights[5]["weight"])
    third = nn.Linear(3, 3).double()
    third.load_state_dict(again.state_dict())
    second = made(EMA(decay=0.8), None, third)
    second.load(first.tensors(), first.values())
    assert torch.equal(third.weight, weights[5]["weight"])
    for step in range(6, 12):
        third.load_state_dict(weights[step])
        second(step)
    with whole.used(), second.used():
        assert torch.equal(flat(model), flat(third))


def test_restored_weights_are_not_averaged_away() -> None:
    model = nn.Linear(2, 2)
    average = made(EMA(decay=0.5), None, model)
    for step in walk(model, 3):
        average(step)
    before = flat(model)
    InTurn((NoAverage(), average)).end(restored=True)
    with average.used():
        assert torch.equal(flat(model), before)
    assert average.tensors() == {}


def test_the_rate_is_constant_while_weights_are_averaged() -> None:
    swa = SWA(start=Duration(epochs=2), lr=0.5)
    assert [settled_rate(swa, lambda step: step / 100, STEPS)(step) for step in (0, 19, 20, 99)] == [0.0, 0.19, 0.5, 0.5]
    assert settled_rate(SWA(start=Duration(epochs=2)), lambda step: step / 100, STEPS)(50) == 0.5
    assert settled_rate(None, lambda step: step / 100, STEPS)(50) == 0.5


def test_seconds_are_no_moment_to_average_at() -> None:
    with pytest.raises(SpecProblem, match=r"training\.swa\.start"):
        build_average(None, SWA(start=Duration(seconds=3.0)), nn.Linear(1, 1), steps=STEPS, statistics=lambda: None)
