"""A job written by a thread from a copy in host memory, which is kept for the next one.

From a GPU the copies are queued before whatever the run queues next, so the run neither waits for them nor overtakes them.
"""

import errno
import threading
import time
from collections.abc import Mapping

import torch

from worker.trainer.staging.job import Job, Written
from worker.trainer.staging.task import deadline

Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""By file and name."""


class Copies:
    """Host memory for all tensors of a save, pinned where they come from a GPU."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], torch.Tensor] = {}

    def take(self, tensors: Tensors) -> tuple[dict[str, dict[str, torch.Tensor]], list[torch.cuda.Event]]:
        """The copies, and what must have happened before they may be read."""
        held: dict[tuple[str, str], torch.Tensor] = {}
        on_gpu = False
        for file, named in tensors.items():
            for name, tensor in named.items():
                held[file, name] = self._home((file, name), tensor).copy_(tensor.detach(), non_blocking=True)
                on_gpu |= tensor.is_cuda
        self._held = held
        events = []
        if on_gpu:
            events.append(torch.cuda.current_stream().record_event())
        return {file: {name: held[file, name] for name in named} for file, named in tensors.items()}, events

    def _home(self, key: tuple[str, str], tensor: torch.Tensor) -> torch.Tensor:
        old = self._held.get(key)
        if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
            return old
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


class Copied:
    def __init__(self, job: Job, after: list[torch.cuda.Event]) -> None:
        self._job, self._after, self._deadline = job, after, deadline(job)
        self._end: list[Written] | OSError | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def outcome(self) -> list[Written]:
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            raise OSError(errno.ETIMEDOUT, "the thread that wrote it did not end")
        if isinstance(self._end, list):
            return self._end
        raise self._end or OSError(errno.EIO, "the thread that wrote it failed")

    def _run(self) -> None:
        try:
            for event in self._after:
                event.synchronize()
            self._end = self._job.run()
        except OSError as error:
            self._end = error
        except Exception as error:  # whatever a driver raises: the save failed, the run goes on
            self._end = OSError(errno.EIO, f"{type(error).__name__}: {error}")
