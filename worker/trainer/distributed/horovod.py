"""A whole model on each rank; gradients are averaged by Horovod, over gloo.

Horovod is in the worker image made for it only, so it is imported when a run asks for it. The ranks are those that torch
has already made a world of: it still carries what ranks tell each other between steps.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from types import ModuleType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from worker.trainer.distributed.gradients import buckets
from worker.trainer.distributed.replica import Outputs
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World


class Allreduced:
    """Gradients are averaged after the last pass of a step: one message per bucket, all under way at once.

    Buckets are laid out in the order of the weights and Horovod may not join them as they happen to be ready, so that every
    run adds in the same order.
    """

    def __init__(self, objective: Objective, world: World) -> None:
        self._objective, self._world, self._nothing = objective, world, nullcontext()
        self._horovod = meet(world)
        self._averaging = _Averaging(self)
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._averaging if last else self._nothing

    def average(self) -> None:
        """In place, over all ranks. Raises DistError when one of them is gone."""
        gradients = [p.grad for p in self._objective.parameters() if p.grad is not None]
        sent: list[tuple[list[torch.Tensor], Any]] = []
        with _a_lost_rank():
            for index, bucket in enumerate(buckets(gradients)):
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                handle = self._horovod.allreduce_async_(flat, name=f"gradients.{index}", op=self._horovod.Average)
                sent.append((bucket, handle))
            for bucket, handle in sent:
                flat = self._horovod.synchronize(handle)
                parts = torch.split(flat, [gradient.numel() for gradient in bucket])
                torch._foreach_copy_(bucket, [part.view_as(gradient) for part, gradient in zip(parts, bucket, strict=True)])

    def settle(self) -> None:
        for buffer in self._objective.model.buffers():
            self._world.broadcast(buffer)


class _Averaging:
    """Around the last pass of a step."""

    def __init__(self, replica: Allreduced) -> None:
        self._replica = replica

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._replica.average()


@contextmanager
def _a_lost_rank() -> Iterator[None]:
    """Horovod's own error is a plain RuntimeError, for whatever went wrong between ranks."""
    try:
        yield
    except RuntimeError as error:
        if type(error).__name__ == "HorovodInternalError":
            raise dist.DistError(f"Horovod: {error}") from error
        raise


def meet(world: World) -> ModuleType:
    """Horovod, started, once all ranks are connected through it. Raises SpecProblem where it is missing, or on GPUs."""
    horovod = _imported()
    if world.device.type != "cpu":
        raise SpecProblem("distributed.strategy is horovod, which is for CPUs here; set resources.device to cpu")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    place, host = environment(world.rank, world.size, local), os.environ.get("MASTER_ADDR", "127.0.0.1")
    server = _rendezvous(host, world.size, local) if world.is_lead else None
    port = world.share(str(server.server_address[1]) if server is not None else None)
    os.environ.update(place)
    os.environ.update(
        HOROVOD_GLOO_RENDEZVOUS_ADDR=host,
        HOROVOD_GLOO_RENDEZVOUS_PORT=port,
        HOROVOD_GLOO_IFACE=os.environ.get("GLOO_SOCKET_IFNAME", "").partition(",")[0],
        HOROVOD_GLOO_TIMEOUT_SECONDS=str(int(world.patience.total_seconds())),
    )
    with _a_lost_rank():
        horovod.init()
    dist.barrier()
    if server is not None:
        server.shutdown()
        server.server_close()
    return horovod


def environment(rank: int, size: int, local_size: int) -> dict[str, str]:
    """Horovod's names for a rank's place, and how it is to work: over gloo, no messages joined."""
    node, local = divmod(rank, local_size)
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_FUSION_THRESHOLD": "0",
        "HOROVOD_RANK": str(rank),
        "HOROVOD_SIZE": str(size),
        "HOROVOD_LOCAL_RANK": str(local),
        "HOROVOD_LOCAL_SIZE": str(local_size),
        "HOROVOD_CROSS_RANK": str(node),
        "HOROVOD_CROSS_SIZE": str(size // local_size),
        "HOROVOD_HOSTNAME": f"node{node}",
    }


def _imported() -> ModuleType:
    try:
        return import_module("horovod.torch")
    except ImportError as error:
        raise SpecProblem(
            "distributed.strategy is horovod, but this worker has no Horovod; run it in the image worker-horovod, or use ddp"
        ) from error


def _rendezvous(host: str, size: int, local_size: int) -> Any:
    """Horovod's own server of addresses, listening where ranks meet and nowhere else; it is shut once all are connected."""
    http = import_module("horovod.runner.http.http_server")
    slot = import_module("horovod.runner.common.util.hosts").SlotInfo
    try:
        server = http.RendezvousHTTPServer((host, 0), http.RendezvousHandler, 0)
    except OSError:  # An address that is not this machine's own is translated to it.
        server = http.RendezvousHTTPServer(("", 0), http.RendezvousHandler, 0)
    places = [(rank, *divmod(rank, local_size)) for rank in range(size)]
    server.init([slot(f"node{node}", rank, local, node, size, local_size, size // local_size) for rank, node, local in places])
    threading.Thread(target=server.serve_forever, name="horovod-rendezvous", daemon=True).start()
    return server
