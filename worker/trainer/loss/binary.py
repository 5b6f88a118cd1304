"""The loss of labels that are each there or not."""

import torch
from torch.nn import functional as F

from stoker.spec.loss import BinaryCrossEntropy
from worker.trainer.errors import SpecProblem
from worker.trainer.loss.summed import Summed, per_sample


class SummedBinary(Summed):
    """Of (n, labels) logits and zeros and ones."""

    def __init__(self, factor: torch.Tensor | None) -> None:
        """`factor`: of labels that are 1; one for all, or one per label."""
        super().__init__()
        self.factor: torch.Tensor | None
        self.register_buffer("factor", factor, persistent=False)

    def each(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return per_sample(F.binary_cross_entropy_with_logits(outputs.float(), targets, pos_weight=self.factor, reduction="none"))


def build_binary(spec: BinaryCrossEntropy, outputs: int, targets: torch.Tensor) -> SummedBinary:
    """Raises SpecProblem when factors do not fit."""
    if not targets.is_floating_point():
        raise SpecProblem("loss.type: bce needs labels of 0 and 1; use cross_entropy for classes and tokens")
    if isinstance(spec.pos_weight, tuple) and len(spec.pos_weight) != outputs:
        raise SpecProblem(
            f"loss.pos_weight: {len(spec.pos_weight)} factors for {outputs} labels; give one per label, or a number"
        )
    return SummedBinary(None if spec.pos_weight is None else torch.tensor(spec.pos_weight))
