"""Weights shared out into groups that the optimizer treats alike."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from stoker.spec.optimizer.param_groups import Grouped, Treatment
from worker.trainer.errors import SpecProblem

Named = Iterable[tuple[str, nn.Parameter]]
Scale = Callable[[str], float]
"""Name of a weight to a factor on its learning rate, beside that of its group."""
Group = dict[str, Any]
"""As torch.optim has it: `params`, and what differs from the optimizer's own; `scale` is what the loop multiplies the rate by."""


def even(name: str) -> float:
    return 1.0


def grouped(spec: Grouped, weights: Named, scale: Scale = even) -> list[Group]:
    """In the order of their first weights, so that alike runs have alike groups. A single group where nothing differs."""
    made: dict[tuple[Treatment, float], Group] = {}
    weights = list(weights)
    treatments = spec.treatments((name, tuple(weight.shape)) for name, weight in weights)
    for (name, weight), treatment in zip(weights, treatments, strict=True):
        group = made.setdefault((treatment, factor := scale(name)), _group(treatment, factor))
        group["params"].append(weight)
    return list(made.values())


def _group(treatment: Treatment, factor: float) -> Group:
    return {
        "params": [],
        "scale": treatment.lr_scale * factor,
        "weight_decay": treatment.weight_decay,
        "companion": treatment.companion,
    }


def check_patterns(spec: Grouped, names: Iterable[str], at: str = "optimizer") -> None:
    """`names`: of all weights of the model. `at`: where the spec has the groups. Raises SpecProblem for a pattern that no weight falls to."""
    for index in spec.idle_groups(names):
        pattern = spec.param_groups[index].pattern
        raise SpecProblem(
            f"{at}.param_groups[{index}].pattern: {pattern!r} matches no weight that an earlier pattern leaves; see the model's summary"
        )
