"""Activation checkpointing specs into blocks that are computed again in the backward pass."""

from functools import cache
from typing import Any, assert_never

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stoker.spec.activation_checkpointing import ActivationCheckpointing, Full, KeepAll, Selective
from worker.trainer.errors import SpecProblem


def recomputing(spec: ActivationCheckpointing, model: nn.Module) -> nn.Module:
    """The same model under the same names; chosen blocks keep only their inputs between their two passes.

    Raises SpecProblem for a model without blocks.
    """
    match spec:
        case KeepAll():
            return model
        case Full() | Selective(every=_):
            blocks = getattr(model, "blocks", None)
            if not isinstance(blocks, nn.ModuleList):
                raise SpecProblem("activation_checkpointing: only models with blocks have any to compute again; use type none")
            for index in spec.recomputed(len(blocks)):
                blocks[index].__class__ = _twice(type(blocks[index]))  # type: ignore[arg-type]  # a class is hashable, whatever its instances are
            return model
        case _:
            assert_never(spec)


@cache
def _twice(kind: type[nn.Module]) -> type[nn.Module]:
    """Blocks of that kind which are computed twice. A class rather than a wrapper: names and copies stay what they were."""

    class Twice(kind):  # type: ignore[misc, valid-type]  # the base is a value
        def forward(self, *inputs: Any) -> Any:
            """Random numbers are drawn again as they were; without gradients there is nothing to keep."""
            if not torch.is_grad_enabled():
                return super().forward(*inputs)
            return checkpoint(super().forward, *inputs, use_reentrant=False, preserve_rng_state=True)

    Twice.__name__ = Twice.__qualname__ = f"{kind.__name__}Twice"
    return Twice
