"""Which weights of a trained model learn on, and how fast. Honoured by `worker.trainer.initialization.finetune`."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field

from stoker.spec.base import Duration, Knob, Positive, Rate, Size, Spec
from stoker.spec.optimizer.param_groups import Pattern

Patterns = Annotated[tuple[Pattern, ...], Field(max_length=1000)]


class Unfreezing(Spec):
    """Weights that begin to learn later."""

    pattern: Annotated[Pattern, Knob(affects=("quality",), rows=("INIT-09",))]
    """Which weights by their names in the model, with `*` and `?`; the first pattern that matches a weight counts."""
    at: Annotated[Duration, Knob(affects=("quality",), rows=("INIT-09",))]
    """After how many steps or epochs they begin to learn; until then they do not change in the least."""


class Lora(Spec):
    """Learn a product of two small matrices beside each chosen matrix, which stays as it is (Hu et al. 2021)."""

    type: Literal["lora"] = "lora"
    """Which adapter this is."""
    rank: Annotated[Size, Knob("rows", ("memory", "quality"), ("INIT-09",))] = 8
    """Inner size of the product."""
    alpha: Annotated[Positive, Knob(affects=("quality",), rows=("INIT-09",))] = 16.0
    """The product is multiplied by alpha / rank."""
    dropout: Annotated[Rate, Knob(affects=("quality",), rows=("INIT-09",))] = 0.0
    """Probability of dropping an input of the product."""
    targets: Annotated[
        Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=1000)], Knob("patterns", ("quality",), ("INIT-09",))
    ]
    """Which linear layers have an adapter, by patterns of their names: `blocks.*.attention.?`; other layers that match have none."""
    train: Annotated[Patterns, Knob("patterns", ("memory", "quality"), ("INIT-09",))] = ()
    """Weights that learn themselves beside the adapters, by patterns of their names, as those of a fresh head."""

    @property
    def factor(self) -> float:
        return self.alpha / self.rank


class Finetune(Spec):
    freeze: Annotated[Patterns, Knob("patterns", ("memory", "speed", "quality"), ("INIT-09",))] = ()
    """Weights that never change, by patterns of their names; batch norms that match keep their statistics and are judged by them."""
    unfreeze_at: Annotated[
        Annotated[tuple[Unfreezing, ...], Field(max_length=1000)], Knob("patterns", ("quality",), ("INIT-09",))
    ] = ()
    """Weights that begin to learn later, whether `freeze` names them or not."""
    layer_lr_decay: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Knob("factor", ("quality",), ("INIT-09",))] = None
    """Factor on the learning rate from each layer to the one before it: the last learns at the full rate; null for all alike."""
    adapter: Annotated[Lora | None, Knob(affects=("memory", "quality"), rows=("INIT-09",))] = None
    """What learns in the place of the weights; null for the weights themselves."""

    def later(self, name: str) -> Unfreezing | None:
        """When a weight begins to learn, where that is later."""
        return next((one for one in self.unfreeze_at if fnmatchcase(name, one.pattern)), None)

    def frozen(self, name: str) -> bool:
        """Whether a weight of the model itself never learns."""
        if self.adapter is not None:
            return not matches(name, self.adapter.train)
        return matches(name, self.freeze) and self.later(name) is None

    def adapted(self, layer: str) -> bool:
        """Whether a linear layer has an adapter."""
        return self.adapter is not None and matches(layer, self.adapter.targets)


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
