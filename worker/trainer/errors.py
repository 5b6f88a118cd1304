"""Why a run cannot go on, as the trainer itself raises it.

RunError
├── SpecProblem         the spec cannot be built (exit 2)
├── DataProblem         the data does not fit the spec (exit 2)
├── NoValidCheckpoint   there are checkpoints and all are damaged (exit 2)
└── Diverged            the loss is no longer a number (exit 3)
"""

from typing import ClassVar

import torch

from stoker.spec.debug import Rollback

NO_HOST_MEMORY = ("can't allocate memory", "not enough memory")
NO_GPU_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""What libraries that raise plain errors say in words."""


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on a GPU."""
    words = (*NO_HOST_MEMORY, *NO_GPU_MEMORY)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(each in str(error) for each in words)


class RunError(Exception):
    """Root of the tree; `reason` is a code of `stoker.reasons`."""

    reason: ClassVar[str] = "user_error"
    exit_code: ClassVar[int] = 1


class SpecProblem(RunError):
    """The message names the field and the remedy."""

    reason = "spec_error"
    exit_code = 2


class DataProblem(RunError):
    """The message names the file or column and the remedy."""

    reason = "data_error"
    exit_code = 2


class NoValidCheckpoint(RunError):
    """Starting again from step 0 would throw work away, so nobody but the user may decide it."""

    reason = "no_valid_checkpoint"
    exit_code = 2


class Diverged(RunError):
    """The loss or a gradient is NaN or infinite, or far out of line."""

    reason = "nan_loss"
    exit_code = 3

    def __init__(self, message: str, remedy: Rollback | None = None) -> None:
        """`remedy`: what the spec wants to be tried before the run ends."""
        super().__init__(message)
        self.remedy = remedy
