"""A job written by a thread from a copy in host memory.

What only an update of the weights changes is copied by the thread, while the run computes the next gradients; the rest at once. From
a GPU the copies are queued before whatever the run queues next, so the run neither waits for them nor overtakes them.
"""

import errno
import threading
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

import numpy as np
import torch

from worker.trainer.staging.job import Job, Written
from worker.trainer.staging.sheet import raw
from worker.trainer.staging.task import deadline

Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""By file and name."""


@dataclass
class Taking:
    """Copies, and what must have happened before they may be read."""

    tensors: dict[str, dict[str, torch.Tensor]]
    events: list[torch.cuda.Event] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)


class Copies:
    """Host memory for all tensors of a save: kept for the next one where it is pinned, for that is slow to get."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], torch.Tensor] = {}

    def take(self, tensors: Tensors, later: Set[int] = frozenset()) -> Taking:
        """`later`: addresses of the storages in host memory that may be copied after this returns."""
        taking = Taking({file: {} for file in tensors})
        held: dict[tuple[str, str], torch.Tensor] = {}
        for file, named in tensors.items():
            for name, tensor in named.items():
                home = taking.tensors[file][name] = self._home((file, name), tensor)
                if tensor.is_cuda:
                    held[file, name] = home
                if later and tensor.is_contiguous() and tensor.untyped_storage().data_ptr() in later:
                    taking.later.append(_itself(home, tensor))
                else:
                    home.copy_(tensor.detach(), non_blocking=True)
        self._held = held
        if held:
            taking.events.append(torch.cuda.current_stream().record_event())
        return taking

    def _home(self, key: tuple[str, str], tensor: torch.Tensor) -> torch.Tensor:
        old = self._held.get(key)
        if old is not None and old.shape == tensor.shape and old.dtype == tensor.dtype:
            return old
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


def _itself(home: torch.Tensor, tensor: torch.Tensor) -> Callable[[], None]:
    """A copy by one thread of the processor's that holds no lock of Python's: the others compute."""
    return lambda: np.copyto(np.asarray(raw(home)), np.asarray(raw(tensor)))


class Copied:
    def __init__(self, job: Job, taking: Taking) -> None:
        self._job, self._taking, self._deadline = job, taking, deadline(job)
        self._taken = threading.Event()
        self._end: list[Written] | OSError | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def taken(self) -> None:
        self._taken.wait()

    def outcome(self) -> list[Written]:
        self._thread.join(max(0.0, self._deadline - time.monotonic()))
        if self._thread.is_alive():
            raise OSError(errno.ETIMEDOUT, "the thread that wrote it did not end")
        if isinstance(self._end, list):
            return self._end
        raise self._end or OSError(errno.EIO, "the thread that wrote it failed")

    def _run(self) -> None:
        try:
            try:
                for copy in self._taking.later:
                    copy()
            finally:
                self._taken.set()
            for event in self._taking.events:
                event.synchronize()
            self._end = self._job.run()
        except OSError as error:
            self._end = error
        except Exception as error:  # whatever a driver raises: the save failed, the run goes on
            self._end = OSError(errno.EIO, f"{type(error).__name__}: {error}")
