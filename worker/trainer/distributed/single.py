"""One process that holds everything."""

from contextlib import AbstractContextManager, nullcontext

import torch

from worker.trainer.distributed.replica import Outputs
from worker.trainer.runtime.objective import Objective


class Alone:
    def __init__(self, objective: Objective) -> None:
        self._objective, self._nothing = objective, nullcontext()
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._nothing

    def settle(self) -> None:
        return
