"""Adversarial specs into what turns samples against the model before it learns from them."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import nn

from stoker.spec.training.adversarial import FGSM, PGD, Adversarial, Attack, FreeAttack
from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.world import World
from worker.trainer.training.passes import Adversary, unharmed


@dataclass(frozen=True)
class Ball:
    """Disturbances that are allowed around a sample."""

    spec: Attack

    def step(self, gradient: torch.Tensor, size: float) -> torch.Tensor:
        """A step of that length uphill; of (n, ...) gradients. One that is no number moves nothing."""
        gradient = gradient.nan_to_num(0.0)
        match self.spec.norm:
            case "linf":
                return size * gradient.sign()
            case "l2":
                lengths = _lengths(gradient)
                return gradient * (size / torch.where(lengths > 0, lengths, 1.0))
            case _:
                assert_never(self.spec.norm)

    def start(self, like: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        """A random disturbance: in a box evenly, in a ball evenly in all directions, with evenly drawn lengths."""
        epsilon = self.spec.epsilon
        match self.spec.norm:
            case "linf":
                return (epsilon * (2 * torch.rand(like.shape, generator=draw) - 1)).to(like)
            case "l2":
                ways = torch.randn(like.shape, generator=draw)
                share = torch.rand(_lengths(ways).shape, generator=draw)
                return (epsilon * share * ways / _lengths(ways).clamp(min=1e-12)).to(like)
            case _:
                assert_never(self.spec.norm)

    def apply(self, clean: torch.Tensor, disturbance: torch.Tensor) -> torch.Tensor:
        """Disturbed samples, in the range of inputs where there is one, and within epsilon of the clean ones to the last bit."""
        moved = clean + self.inside(disturbance)
        if self.spec.clip is not None:
            moved = moved.clamp(self.spec.clip.low, self.spec.clip.high)
        return self._nearer(moved, clean)

    def inside(self, disturbance: torch.Tensor) -> torch.Tensor:
        match self.spec.norm:
            case "linf":
                return disturbance.clamp(-self._radius, self._radius)
            case "l2":
                lengths = _lengths(disturbance)
                return torch.where(lengths > self._radius, disturbance * (self._radius / lengths.clamp(min=1e-30)), disturbance)
            case _:
                assert_never(self.spec.norm)

    @property
    def _radius(self) -> float:
        """The largest number in float32 that is no larger than epsilon."""
        near = torch.tensor(self.spec.epsilon, dtype=torch.float32)
        return near.item() if near.item() <= self.spec.epsilon else torch.nextafter(near, torch.zeros(())).item()

    def _nearer(self, moved: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """A sum is rounded, which may carry it out of the ball by half a bit."""
        epsilon = self.spec.epsilon
        match self.spec.norm:
            case "linf":
                far = (moved.double() - clean.double()).abs() > epsilon
                near = torch.where(far, torch.nextafter(moved, clean), moved)
                return torch.where((near.double() - clean.double()).abs() > epsilon, clean, near)
            case "l2":
                for slack in (1e-6, 1e-4, 1e-2):
                    lengths = _lengths(moved.double() - clean.double())
                    shrunk = clean + (moved - clean) * (epsilon * (1 - slack) / lengths.clamp(min=1e-300)).to(clean)
                    moved = torch.where(lengths > epsilon, shrunk, moved)
                return torch.where(_lengths(moved.double() - clean.double()) > epsilon, clean, moved)
            case _:
                assert_never(self.spec.norm)


def _lengths(values: torch.Tensor) -> torch.Tensor:
    """Euclidean, of each sample: (n, 1, ...)."""
    lengths: torch.Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths.reshape(-1, *[1] * (values.dim() - 1))


class Climber:
    """FGSM and PGD: the loss is climbed from each sample in passes of their own, which leave nothing behind.

    They go around whatever exchanges gradients, ask for the gradient of the inputs alone, draw no dropout, and leave BatchNorm's
    statistics as they are.
    """

    def __init__(
        self,
        ball: Ball,
        sizes: list[float],
        ratio: float,
        objective: Objective,
        autocast: Callable[[], AbstractContextManager[object]],
        draw: Callable[[], torch.Generator] | None,
    ) -> None:
        """`sizes`: of the steps. `draw`: gives the generator of random starts, where the attack begins at random."""
        self._ball, self._sizes, self._ratio = ball, sizes, ratio
        self._objective, self._autocast, self._draw = objective, autocast, draw

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        count = math.ceil(self._ratio * len(inputs) - 1e-9)
        if count == 0:
            return inputs
        clean, truth = inputs[:count], targets[:count]
        with still(self._objective):
            attacked = self._climbed(clean, truth)
        return torch.cat((attacked, inputs[count:])) if count < len(inputs) else attacked

    def _climbed(self, clean: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        attacked = clean if self._draw is None else self._ball.apply(clean, self._ball.start(clean, self._draw()))
        for size in self._sizes:
            place = attacked.detach().requires_grad_()
            with torch.enable_grad(), self._autocast():
                loss = self._objective(place, truth)
            (gradient,) = torch.autograd.grad(loss, place)
            attacked = self._ball.apply(clean, attacked - clean + self._ball.step(gradient, size))
        return attacked.detach()


@contextmanager
def still(module: nn.Module) -> Iterator[None]:
    """As in evaluation within, but for two things. BatchNorm normalises by the batch, without remembering it: its running
    statistics are each rank's own, and a resumed run has only rank 0's. A GPU goes back through recurrent layers in training only.
    """
    norms = [part for part in module.modules() if isinstance(part, AnyBatchNorm) and part.track_running_stats]
    others = [part for part in module.modules() if part.training and not isinstance(part, nn.RNNBase | AnyBatchNorm)]
    for part in others:
        part.training = False
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for part in others:
            part.training = True
        for norm in norms:
            norm.track_running_stats = True


class Free:
    """The pass that the weights learn from also tells where the disturbance goes next; it is carried from step to step."""

    def __init__(self, ball: Ball, size: float, places: int, moment: Callable[[], int], world: World) -> None:
        """`places`: samples of a batch on the rank that has most. `moment`: the step that is being made."""
        self._ball, self._size, self._moment, self._world = ball, size, moment, world
        self._places = places
        self._carried: torch.Tensor | None = None
        self._step, self._next = -1, 0

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        carried = self._at(inputs.shape[1:])
        if self._step != self._moment():
            self._step, self._next = self._moment(), 0
        mine = carried[self._next : self._next + len(inputs)]
        self._next += len(inputs)
        attacked = self._ball.apply(inputs, mine).requires_grad_()

        def move(gradient: torch.Tensor) -> None:
            with torch.no_grad():
                mine.copy_(self._ball.inside(mine + self._ball.step(gradient, self._size)))

        if len(inputs):
            attacked.register_hook(move)  # type: ignore[no-untyped-call]  # torch has no types here
        return attacked

    def _at(self, shape: torch.Size) -> torch.Tensor:
        if self._carried is None:
            self._carried = torch.zeros(self._places, *shape, device=self._world.device)
        return self._carried

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everybody's, by rank."""
        return {} if self._carried is None else {"disturbance": self._world.gather(self._carried)}

    def values(self) -> dict[str, Any]:
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """With another number of ranks, disturbances begin at nothing."""
        stacked = tensors.get("disturbance")
        fits = stacked is not None and stacked.shape[:2] == (self._world.size, self._places)
        self._carried = stacked[self._world.rank].clone().to(self._world.device) if fits and stacked is not None else None


def build_adversary(
    spec: Adversarial | None,
    objective: Objective,
    autocast: Callable[[], AbstractContextManager[object]],
    world: World,
    *,
    batch_size: int,
    moment: Callable[[], int],
    seed: Callable[[int, int], int],
) -> tuple[Adversary, Part]:
    """The adversary, and what the checkpoint keeps of it. `moment`: the step that is being made. `seed`: of the random places
    of one part of the batch at a step.
    """
    match spec:
        case None:
            return unharmed, Part()
        case FGSM():
            return Climber(Ball(spec), [spec.epsilon], spec.ratio, objective, autocast, None), Part()
        case PGD():
            size = 2.5 * spec.epsilon / spec.steps if spec.step_size is None else spec.step_size
            draw = Draws(moment, lambda step: seed(world.data_index, step)) if spec.random_start else None
            return Climber(Ball(spec), [size] * spec.steps, spec.ratio, objective, autocast, draw), Part()
        case FreeAttack():
            size = spec.epsilon if spec.step_size is None else spec.step_size
            free = Free(Ball(spec), size, -(-batch_size // world.data_parts), moment, world)
            return free, Part({"adversary": free})
        case _:
            assert_never(spec)


def replays_of(spec: Adversarial | None) -> int:
    """Steps that use the same batch."""
    return spec.replays if isinstance(spec, FreeAttack) else 1


class Draws:
    """One stream of random numbers for each step, so that a resumed run draws what it would have drawn."""

    def __init__(self, moment: Callable[[], int], seed: Callable[[int], int]) -> None:
        self._moment, self._seed = moment, seed
        self._step, self._generator = -1, torch.Generator()

    def __call__(self) -> torch.Generator:
        if self._step != self._moment():
            self._step = self._moment()
            self._generator.manual_seed(self._seed(self._step))
        return self._generator
