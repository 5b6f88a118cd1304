"""Which weights an optimizer treats apart from the rest. Built by `worker.trainer.optimizer.param_groups`."""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, NamedTuple

from pydantic import Field

from stoker.spec.base import Knob, NonNegative, Spec

Shape = tuple[int, ...]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
"""A name of weights with `*` for any characters and `?` for one: `blocks.0.*`, `*.bias`."""


class ParamGroup(Spec):
    """Weights whose names match a pattern, and what is different for them."""

    pattern: Annotated[Pattern, Knob(affects=("quality",), rows=("OPT-02",))]
    """Which weights by their names in the model, with `*` and `?`, `blocks.0.*`; the first pattern that matches a weight counts."""
    lr_scale: Annotated[NonNegative, Knob("factor", ("quality",), ("OPT-02",))] = 1.0
    """Factor on the learning rate of these weights; 0 keeps them as they are."""
    weight_decay: Annotated[NonNegative | None, Knob(affects=("quality",), rows=("OPT-18",))] = None
    """Weight decay of these weights; unset, that of the optimizer."""


class Treatment(NamedTuple):
    """What an optimizer does with a weight; weights that share it are one group."""

    lr_scale: float
    weight_decay: float
    companion: bool = False
    """Whether the optimizer leaves the weight to another one, its companion."""


class Grouped(Spec):
    """What every optimizer shares."""

    asks_names: ClassVar[bool] = False
    """Whether what is remembered of a weight depends on its name."""
    weight_decay: Annotated[NonNegative, Knob(affects=("quality",), rows=("OPT-18",))] = 0.0
    """Pull towards zero added to the gradient (L2)."""
    decay_norms_and_biases: Annotated[bool, Knob(affects=("quality",), rows=("OPT-18",))] = True
    """Let weight decay act on norms and biases too: on weights of one dimension."""
    param_groups: Annotated[tuple[ParamGroup, ...], Field(max_length=1000)] = ()
    """Weights that learn at another rate or decay in another way, by patterns of their names."""

    def treatments(self, weights: Iterable[tuple[str, Shape]]) -> Iterator[Treatment]:
        """Of all weights of a model, by name without what wrappers add to it, and shape; in the order of the model."""
        for name, shape in weights:
            group = next((group for group in self.param_groups if fnmatchcase(name, group.pattern)), ParamGroup(pattern="*"))
            decay = self.weight_decay if self.decay_norms_and_biases or len(shape) > 1 else 0.0
            yield Treatment(group.lr_scale, decay if group.weight_decay is None else group.weight_decay)

    def remembered(self, shape: Shape, treatment: Treatment) -> Mapping[str, Shape]:
        """Tensors that are kept of a weight from step to step: in its number format, or one float32 where they have no dimension."""
        raise NotImplementedError

    @property
    def momentum_share(self) -> float | None:
        """Share of the past in each update, which a schedule may move; None for an optimizer without momentum."""
        return None

    def idle_groups(self, names: Iterable[str]) -> list[int]:
        """Indices of groups that no weight falls into."""
        idle, names = list(range(len(self.param_groups))), list(names)
        for name in names if idle else ():
            first = next((i for i, group in enumerate(self.param_groups) if fnmatchcase(name, group.pattern)), None)
            idle = [i for i in idle if i != first]
        return idle
