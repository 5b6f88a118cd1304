"""The processes of one run, and the few things they tell each other."""

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

import torch
import torch.distributed as dist

from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.tpu import first_tpu


@dataclass(frozen=True)
class World:
    """All ranks, and how they share the batch: ranks of one data index hold parts of one model and see the same samples."""

    rank: int
    size: int
    device: torch.device
    data_index: int
    """Which part of each batch this rank takes, from 0."""
    data_parts: int
    """In how many parts a batch is taken; the number of ranks where each holds a whole model."""
    data_group: dist.ProcessGroup | None = None
    """One rank of each part, among them this one; None for all ranks."""
    pieces: dist.ProcessGroup | None = None
    """Ranks that hold other weights of the same model, among them this one; None where each holds at least a part of every one."""
    servers: int = 0
    """Further ranks, which hold the weights and are no part of this world."""
    stream: int = 0
    """Which stream of random numbers this rank draws from: its own, or that of its part where ranks must draw alike."""
    patience: timedelta = timedelta(minutes=30)
    """How long ranks wait for each other."""

    @property
    def is_lead(self) -> bool:
        return self.rank == 0

    def arranged(
        self,
        index: int,
        parts: int,
        group: dist.ProcessGroup | None,
        stream: int | None = None,
        pieces: dist.ProcessGroup | None = None,
    ) -> "World":
        """The same ranks, taking the batch in other parts. `stream`: of random numbers; unset, ranks of one part draw alike."""
        stream = index if stream is None else stream
        return replace(self, data_index=index, data_parts=parts, data_group=group, stream=stream, pieces=pieces)

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all parts of the batch, in place, the same on all ranks."""
        if self.data_parts > 1:
            dist.all_reduce(value, group=self.data_group)
        return value

    def most(self, value: torch.Tensor) -> torch.Tensor:
        """The largest over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return value

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        """Everybody's tensor, stacked by rank: (ranks, *shape)."""
        if self.size == 1:
            return value.unsqueeze(0)
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value)
        return torch.stack(parts)

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        """Rank 0's tensor in everybody's place."""
        if self.size > 1:
            dist.broadcast(value, src=0)
        return value

    def share(self, text: str | None) -> str:
        """Rank 0's text on every rank; the others pass None."""
        if self.size == 1:
            return text or ""
        data = torch.frombuffer(bytearray((text or "").encode()) or bytearray(1), dtype=torch.uint8).to(self.device)
        size = self.broadcast(torch.tensor([len((text or "").encode())], device=self.device))
        buffer = data if self.is_lead else torch.empty(max(1, int(size)), dtype=torch.uint8, device=self.device)
        self.broadcast(buffer)
        return bytes(buffer[: int(size)].cpu().tolist()).decode()


def limit_memory(device: torch.device, fraction: float | None) -> None:
    """Of its GPU's memory this process takes no more than a fraction; beyond it allocations raise torch.OutOfMemoryError."""
    if fraction is not None and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)


def rank_from_environment() -> int:
    return int(os.environ.get("RANK", "0"))


def ranks_from_environment() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_world(
    device: Literal["auto", "cpu", "cuda", "tpu"],
    cpus: int | None,
    patience: timedelta,
    servers: int = 0,
    *,
    offloads: bool = False,
) -> World:
    """Meet the other ranks as torchrun's environment says, but for the last `servers`; alone without it.

    The number of threads is set here and always, because it changes the bits of a sum: OMP_NUM_THREADS, else the share of
    `resources.cpus`, else one. Ranks wait for each other as long as `patience`. `offloads`: ranks with GPUs also exchange what
    lies in host memory. Raises SpecProblem when a GPU or a TPU is asked for and there is none.
    """
    size, local = ranks_from_environment(), int(os.environ.get("LOCAL_RANK", "0"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, (cpus or size) // size))
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecProblem("resources.device is cuda, but this worker has no usable GPU; set it to auto or cpu")
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    place = torch.device("cuda", local % torch.cuda.device_count()) if on_gpu else torch.device("cpu")
    if device == "tpu":
        place = first_tpu(size)
    if on_gpu:
        torch.cuda.set_device(place)
    if size > 1 and os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the host's own name need not resolve
    rank = rank_from_environment()
    members = size - servers
    if members > 1:
        gpu = "cpu:gloo,cuda:nccl" if offloads else "nccl"
        dist.init_process_group(gpu if on_gpu else "gloo", timeout=patience, rank=rank, world_size=members)
    return World(rank, members, place, data_index=rank, data_parts=members, stream=rank, servers=servers, patience=patience)
