"""What one sample costs in floating-point operations, counted on a copy of the model that has shapes and no numbers."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import TypeVar

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from worker.trainer.runtime.compat import FakeTensorMode, tree_leaves

SAMPLES = 2
"""Played at once: one alone has no batch statistics."""
T = TypeVar("T")


class MetaModel:
    """A copy of a model that weighs nothing, as it is when this is made: before ranks share it out."""

    def __init__(self, model: nn.Module, sample: torch.Tensor) -> None:
        """`sample`: (n, *shape) inputs of the model; only their shape and type count."""
        self._model, self._shape, self._dtype = _emptied(model), (SAMPLES, *sample.shape[1:]), sample.dtype

    def play(self, act: Callable[[nn.Module, torch.Tensor], T]) -> T | None:
        """What `act` makes of the model and a batch of `SAMPLES`; None where a model cannot run without numbers.

        On no device at first, which is quick; what asks for a device (autocast, some kernels) is given a pretended CPU.
        """
        for pretended in (False, True):
            mode: AbstractContextManager[object] = FakeTensorMode(allow_non_fake_inputs=True) if pretended else nullcontext()
            device, model = torch.device("cpu" if pretended else "meta"), copy.deepcopy(self._model)
            try:
                # Attention by its textbook kernel: the fused ones of a CPU are not counted.
                with mode, sdpa_kernel(SDPBackend.MATH):
                    return act(model.to_empty(device=device), torch.zeros(self._shape, dtype=self._dtype, device=device))
            except (RuntimeError, NotImplementedError, TypeError, ValueError):
                continue
        return None


Total = Callable[[nn.Module, torch.Tensor], torch.Tensor]
"""Of a model and a batch, one number that the backward pass begins with."""


def _all_outputs(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    sums = [leaf.sum() for leaf in tree_leaves(model(batch)) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    return torch.stack(sums).sum()


def cost_of(meta_model: MetaModel, shares: Sequence[tuple[float, Total]] = ()) -> Callable[[], float | None]:
    """FLOPs of forward and backward pass of one sample, counted when they are first asked for. `shares`: of a model whose steps
    differ, the part of them that do something, and what; unset, all of them go through the model.
    """

    @cache
    def cost() -> float | None:
        counts = [(share, meta_model.play(partial(_counted, total=total))) for share, total in shares or ((1.0, _all_outputs),)]
        return None if any(count is None for _, count in counts) else sum(share * (count or 0.0) for share, count in counts)

    return cost


def _counted(model: nn.Module, batch: torch.Tensor, total: Total) -> float:
    with FlopCounterMode(display=False) as counter:
        total(model, batch).backward()  # type: ignore[no-untyped-call]  # torch has no types here
    return float(counter.get_total_flops()) / len(batch)


def _emptied(model: nn.Module) -> nn.Module:
    """Weights and buffers have shapes alone; weights that do not learn stay so."""
    replaced: dict[int, object] = {}
    for weight in model.parameters():
        replaced[id(weight)] = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
    for buffer in model.buffers():
        replaced[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, replaced)
