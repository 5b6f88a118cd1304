"""What one sample costs in floating-point operations, counted on a copy of the model that has shapes and no numbers."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

SAMPLES = 2
"""Counted at once: one alone has no batch statistics."""


def cost_of(model: nn.Module, sample: torch.Tensor) -> Callable[[], float | None]:
    """FLOPs of one sample, counted when they are first asked for."""
    cost = Cost(model, sample)
    return lambda: cost.per_sample


class Cost:
    """Counts when it is first asked, of the model as it is when this is made: before ranks share it out."""

    def __init__(self, model: nn.Module, sample: torch.Tensor) -> None:
        """`sample`: (n, *shape) inputs of the model; only their shape and type count."""
        self._model, self._shape, self._dtype = _hollow(model), (SAMPLES, *sample.shape[1:]), sample.dtype

    @cached_property
    def per_sample(self) -> float | None:
        """FLOPs of forward and backward pass; None where a model cannot run without numbers.

        On no device at first, which is quick; what asks for a device (autocast, some kernels) is given a pretended CPU.
        """
        for pretended in (False, True):
            try:
                return self._count(pretended) / SAMPLES
            except (RuntimeError, NotImplementedError, TypeError, ValueError):
                continue
        return None

    def _count(self, pretended: bool) -> int:
        mode: AbstractContextManager[object] = FakeTensorMode(allow_non_fake_inputs=True) if pretended else nullcontext()
        device = torch.device("cpu" if pretended else "meta")
        model = copy.deepcopy(self._model)
        # Attention by its textbook kernel: the fused ones of a CPU are not counted.
        with mode, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            outputs = model.to_empty(device=device)(torch.zeros(self._shape, dtype=self._dtype, device=device))
            sums = [leaf.sum() for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
            torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]  # torch has no types here
        return int(counter.get_total_flops())


def _hollow(model: nn.Module) -> nn.Module:
    """A copy whose weights and buffers have shapes alone; weights that do not learn stay so."""
    replaced: dict[int, object] = {}
    for weight in model.parameters():
        replaced[id(weight)] = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=weight.requires_grad)
    for buffer in model.buffers():
        replaced[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(model, replaced)
