"""Attacks against what their papers say of them: how far they go, what they raise, what they leave alone."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.loss import CrossEntropy
from stoker.spec.training.adversarial import FGSM, PGD, FreeAttack, InputRange
from worker.trainer.loss import build_loss
from worker.trainer.reproducibility import Seeds
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World
from worker.trainer.training.adversarial import Ball, Climber, Draws, Free, build_adversary, replays_of
from worker.trainer.training.passes import unharmed

ALONE = World(0, 1, torch.device("cpu"), data_index=0, data_parts=1)
SEEDS = Seeds(0, 0)


def objective(*more: nn.Module) -> Objective:
    torch.manual_seed(0)
    targets = torch.tensor([0, 1, 2])
    return Objective(nn.Sequential(nn.Linear(10, 16), *more, nn.ReLU(), nn.Linear(16, 3)), build_loss(CrossEntropy(), 3, targets))


def samples(count: int = 24, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return scale * torch.randn(count, 10, generator=draw), torch.randint(0, 3, (count,), generator=draw)


def adversary(spec: Any, goal: Objective, step: int = 0) -> Any:
    made, _ = build_adversary(spec, goal, nullcontext, ALONE, batch_size=24, moment=lambda: step, seed=SEEDS.attack)
    return made


def norms(moved: torch.Tensor, clean: torch.Tensor, norm: str) -> torch.Tensor:
    distance = moved.double() - clean.double()
    return distance.abs().amax(1) if norm == "linf" else distance.norm(dim=1)


@pytest.mark.proves("TRAIN-11")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [1e-6, 0.03, 0.1, 0.3, 7.7])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_disturbances_stay_within_epsilon_to_the_last_bit(norm: Any, epsilon: float, scale: float) -> None:
    goal, (inputs, targets) = objective(), samples(scale=scale)
    for spec in (FGSM(epsilon=epsilon, norm=norm), PGD(epsilon=epsilon, norm=norm, steps=5, step_size=epsilon)):
        assert norms(adversary(spec, goal)(inputs, targets), inputs, norm).max() <= epsilon
    free = adversary(FreeAttack(epsilon=epsilon, norm=norm), goal)
    for _ in range(3):
        attacked = free(inputs, targets)
        goal(attacked, targets).backward()
        free._step = -1
        assert norms(attacked.detach(), inputs, norm).max() <= epsilon


def test_a_fast_attack_is_one_step_along_the_sign_of_the_gradient() -> None:
    goal, (inputs, targets) = objective(), samples()
    place = inputs.clone().requires_grad_()
    F.cross_entropy(goal.model(place), targets, reduction="sum").backward()
    assert place.grad is not None
    attacked = adversary(FGSM(epsilon=0.05), goal)(inputs, targets)
    torch.testing.assert_close(attacked, inputs + 0.05 * place.grad.sign(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_projected_attack_is_that_of_its_paper(norm: Any) -> None:
    """Step, projection, step …, written down once more."""
    goal, (inputs, targets) = objective(), samples()
    spec = PGD(epsilon=0.2, norm=norm, steps=4, step_size=0.08, random_start=False, clip=InputRange(low=-1.0, high=1.0))
    clean = inputs.clamp(-1, 1)
    expected = clean.clone()
    for _ in range(4):
        expected.requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(goal.model(expected), targets, reduction="sum"), expected)
        with torch.no_grad():
            if norm == "linf":
                expected = torch.minimum(torch.maximum(expected + 0.08 * slope.sign(), clean - 0.2), clean + 0.2)
            else:
                distance = expected + 0.08 * slope / slope.norm(dim=1, keepdim=True) - clean
                expected = clean + distance * (0.2 / distance.norm(dim=1, keepdim=True)).clamp(max=1.0)
            expected = expected.clamp(-1, 1)
    attacked = adversary(spec, goal)(clean, targets)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-5)
    assert attacked.abs().max() <= 1.0


@pytest.mark.proves("TRAIN-11")
@pytest.mark.parametrize("spec", [FGSM(epsilon=0.2), FGSM(epsilon=1.0, norm="l2"), PGD(epsilon=0.2), PGD(epsilon=1.0, norm="l2")])
def test_attacked_samples_are_worse(spec: Any) -> None:
    goal, (inputs, targets) = objective(), samples()
    clean = F.cross_entropy(goal.model(inputs), targets, reduction="none")
    worse = F.cross_entropy(goal.model(adversary(spec, goal)(inputs, targets)), targets, reduction="none")
    assert worse.sum() > 1.05 * clean.sum()
    assert (worse >= clean - 1e-6).all()


@pytest.mark.parametrize("spec", [FGSM(epsilon=0.0), PGD(epsilon=0.0), PGD(epsilon=0.0, norm="l2"), FGSM(epsilon=0.0, norm="l2")])
def test_no_room_is_no_attack(spec: Any) -> None:
    inputs, targets = samples()
    assert torch.equal(adversary(spec, objective())(inputs, targets), inputs)


@pytest.mark.parametrize(("ratio", "attacked"), [(0.0, 0), (0.25, 6), (0.3, 8), (1.0, 24)])
def test_a_share_of_the_batch_is_attacked(ratio: float, attacked: int) -> None:
    inputs, targets = samples()
    moved = adversary(FGSM(epsilon=0.1, ratio=ratio), objective())(inputs, targets)
    assert (moved != inputs).any(1).tolist() == [True] * attacked + [False] * (24 - attacked)


def test_an_attack_leaves_nothing_behind() -> None:
    """Neither gradients, nor statistics, nor a draw from the stream that dropout draws from."""
    goal, (inputs, targets) = objective(nn.BatchNorm1d(16), nn.Dropout(0.5)), samples()
    state = {name: value.clone() for name, value in goal.state_dict().items()}
    noise = torch.get_rng_state()
    adversary(PGD(epsilon=0.1), goal)(inputs, targets)
    assert all(torch.equal(value, state[name]) for name, value in goal.state_dict().items())
    assert all(param.grad is None for param in goal.parameters())
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(module.training for module in goal.modules())


def test_random_starts_are_a_matter_of_the_step() -> None:
    goal, (inputs, targets) = objective(), samples()
    spec = PGD(epsilon=0.1, steps=1, step_size=1e-9)
    one, again, other = (adversary(spec, goal, step)(inputs, targets) for step in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    moving = {"step": 0}
    draws = Draws(lambda: moving["step"], lambda step: 100 + step)
    first, second = torch.rand(3, generator=draws()), torch.rand(3, generator=draws())
    assert not torch.equal(first, second)
    moving["step"] = 1
    assert torch.equal(torch.rand(3, generator=draws()), torch.rand(3, generator=torch.Generator().manual_seed(101)))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm: Any) -> None:
    ball, draw = Ball(PGD(epsilon=0.5, norm=norm)), torch.Generator().manual_seed(0)
    starts = ball.start(torch.zeros(2000, 3), draw)
    sizes = norms(starts, torch.zeros(2000, 3), norm)
    assert 0.45 < sizes.max() <= 0.5 + 1e-6
    assert abs(starts.mean()) < 0.02


def test_a_free_attack_moves_by_the_gradient_of_the_step_and_is_carried_on() -> None:
    goal, (inputs, targets) = objective(), samples()
    step = {"now": 0}
    free = Free(Ball(FreeAttack(epsilon=0.1)), 0.04, 24, lambda: step["now"], ALONE)
    expected = torch.zeros_like(inputs)
    for now in range(6):
        step["now"] = now
        place = (inputs + expected).requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(goal.model(place), targets, reduction="sum"), place)
        for rows in (slice(0, 10), slice(10, 24)):  # two micro-batches
            attacked = free(inputs[rows], targets[rows])
            torch.testing.assert_close(attacked.detach(), (inputs + expected)[rows], rtol=0, atol=1e-6)
            goal(attacked, targets[rows]).backward()
        expected = (expected + 0.04 * slope.sign()).clamp(-0.1, 0.1)
    again = Free(Ball(FreeAttack(epsilon=0.1)), 0.04, 24, lambda: 6, ALONE)
    again.load(free.tensors(), free.values())
    torch.testing.assert_close(again(inputs, targets).detach(), inputs + expected, rtol=0, atol=1e-6)
    fresh = Free(Ball(FreeAttack(epsilon=0.1)), 0.04, 12, lambda: 6, ALONE)
    fresh.load(free.tensors(), free.values())  # saved by a run that shared batches otherwise
    assert fresh.tensors() == {}


def test_what_is_built() -> None:
    goal = objective()
    assert build_adversary(None, goal, nullcontext, ALONE, batch_size=8, moment=lambda: 0, seed=SEEDS.attack) == (
        unharmed,
        Part(),
    )
    assert isinstance(adversary(PGD(), goal), Climber)
    assert (replays_of(FreeAttack(replays=3)), replays_of(PGD()), replays_of(None)) == (3, 1, 1)
