"""Adapters beside linear layers, and the layers that come of it when they are merged."""

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.initialization.finetune import Lora, matches
from worker.trainer.errors import SpecProblem

LORA = (".lora_a", ".lora_b")
"""What the names of adapters' weights end with."""


class Adapted(nn.Linear):
    """x W^T + b + factor x dropout(x) A^T B^T. W and b keep their names; B is zero at first, so that nothing changes."""

    def __init__(self, base: nn.Linear, spec: Lora) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.factor = base.weight, spec.factor
        self.register_parameter("bias", base.bias)
        self.lora_a = nn.Parameter(base.weight.new_empty(spec.rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, spec.rank))
        self.dropout = nn.Dropout(spec.dropout)
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + F.linear(F.linear(self.dropout(x), self.lora_a), self.lora_b) * self.factor


def adapt(spec: Lora, model: nn.Module) -> None:
    """Each linear layer that a pattern fits has an adapter from here on. Raises SpecProblem for a pattern that fits none."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for index, pattern in enumerate(spec.targets):
        if not any(matches(name, (pattern,)) for name in layers):
            raise SpecProblem(
                f"initialization.finetune.adapter.targets[{index}]: {pattern!r} matches no linear layer; "
                f"there are {', '.join(layers)[:600]}"
            )
    for name, layer in layers.items():
        if not matches(name, spec.targets):
            continue
        if hasattr(model, "projection") and name in ("head", "widen"):
            raise SpecProblem(
                f"initialization.finetune.adapter.targets: {name} of a transformer takes no adapter; name the layers of its blocks, "
                f"and {name}.* in adapter.train"
            )
        if spec.rank > min(layer.in_features, layer.out_features):
            raise SpecProblem(
                f"initialization.finetune.adapter.rank: {spec.rank} is more than {name} has, "
                f"{layer.out_features} x {layer.in_features}; lower it"
            )
        where, _, last = name.rpartition(".")
        setattr(model.get_submodule(where), last, Adapted(layer, spec))


def own_name(name: str) -> bool:
    """Whether it is a weight of the model itself."""
    return not name.endswith(LORA)


def merged(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: float) -> torch.Tensor:
    """The one matrix that says what a matrix and its adapter say together; multiplied in double precision."""
    return (weight.double() + factor * (b.double() @ a.double())).to(weight.dtype)


def merge(tensors: Mapping[str, torch.Tensor], spec: Lora | None) -> dict[str, torch.Tensor]:
    """A model's tensors without adapters, whatever there were."""
    if spec is None:
        return dict(tensors)
    made = {name: tensor for name, tensor in tensors.items() if own_name(name)}
    for name in tensors:
        if name.endswith(".lora_a"):
            layer = name.removesuffix(".lora_a")
            made[f"{layer}.weight"] = merged(tensors[f"{layer}.weight"], tensors[name], tensors[f"{layer}.lora_b"], spec.factor)
    return made
