"""Two optimizers that a run sees as one: each moves the weights of its own network."""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import nn

from stoker.spec import JobSpec
from stoker.spec.optimizer import Optimizer
from stoker.spec.task import Generation
from worker.trainer.optimizer import build_optimizer
from worker.trainer.optimizer.param_groups import Scale, check_patterns, even

GENERATOR, DISCRIMINATOR = "generator.", "discriminator."
"""What names of weights begin with; patterns of an optimizer are those within its network."""

State = dict[str, Any]
"""What an optimizer remembers of one weight, by the names that torch gives it."""


class Both(MutableMapping[torch.Tensor, State]):
    """What two optimizers remember, each of its own weights."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._optimizers = optimizers
        self._owner = {p: each for each in optimizers for group in each.param_groups for p in group["params"]}

    def __getitem__(self, weight: torch.Tensor) -> State:
        states: dict[torch.Tensor, State] = self._owner[weight].state
        if weight not in states:  # they make an entry of whatever is looked up
            raise KeyError(weight)
        return states[weight]

    def __setitem__(self, weight: torch.Tensor, state: State) -> None:
        self._owner[weight].state[weight] = state

    def __delitem__(self, weight: torch.Tensor) -> None:
        del self._owner[weight].state[weight]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (weight for each in self._optimizers for weight in list(each.state))

    def __len__(self) -> int:
        return sum(len(each.state) for each in self._optimizers)


class Pair(torch.optim.Optimizer):
    """A step moves the weights that have gradients; a network without any is left as it is."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self._optimizers = (first, second)
        groups = [group for each in self._optimizers for group in each.param_groups]
        super().__init__([dict(group) for group in groups], {})
        self.param_groups = groups  # themselves, so that rates which are set here are theirs
        self.state = Both(self._optimizers)  # type: ignore[assignment]  # a mapping as torch has it

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is computed again
        for each in self._optimizers:
            if any(p.grad is not None for group in each.param_groups for p in group["params"]):
                each.step()


Named = Sequence[tuple[str, nn.Parameter]]


def build_optimizers(spec: JobSpec, weights: Named, scale: Scale = even) -> torch.optim.Optimizer:
    """The optimizer of a model, or those of the two networks of a gan. `scale`: a factor on the learning rate of each weight.

    The loop sets the rates of all groups by the generator's: those of the discriminator are as many times higher as its own is.
    """
    rival = rival_of(spec)
    if rival is None:
        return build_optimizer(spec.optimizer, weights, scale)
    higher = rival.lr / spec.optimizer.lr
    return Pair(
        build_optimizer(spec.optimizer, within(GENERATOR, weights)),
        build_optimizer(rival, within(DISCRIMINATOR, weights), lambda name: higher),
    )


def averaged(spec: JobSpec) -> str:
    """What the names of the weights begin with that an average of them is about: those of the generator, where there is one."""
    return GENERATOR if isinstance(spec.task, Generation) else ""


def check_all_patterns(spec: JobSpec, weights: Named) -> None:
    """Raises SpecProblem for a pattern that no weight falls to."""
    rival = rival_of(spec)
    if rival is None:
        check_patterns(spec.optimizer, (name for name, _ in weights))
        return
    check_patterns(spec.optimizer, (name for name, _ in within(GENERATOR, weights)))
    check_patterns(rival, (name for name, _ in within(DISCRIMINATOR, weights)), "task.discriminator_optimizer")


def rival_of(spec: JobSpec) -> Optimizer | None:
    """What moves the discriminator, where there is one."""
    return (spec.task.discriminator_optimizer or spec.optimizer) if isinstance(spec.task, Generation) else None


def within(network: str, weights: Iterable[tuple[str, nn.Parameter]]) -> list[tuple[str, nn.Parameter]]:
    """The weights of one network, by their names within it."""
    return [(name.removeprefix(network), weight) for name, weight in weights if name.startswith(network)]
