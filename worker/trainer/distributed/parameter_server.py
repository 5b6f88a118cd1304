"""A parameter server: the last ranks hold shares of the weights and the optimizer, the others push gradients and pull weights.

Workers are a world of their own; servers are reached by `torch.distributed.rpc`. In sync mode the servers' mean gradient comes
back to the workers, which bound and judge it as ever; what is left of it goes to the servers, which step and give weights.
"""

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import rpc

from stoker.spec.distributed import BoundedStaleness, Distributed, ParameterServer, Sync
from worker.trainer.distributed.replica import Outputs
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World

Tensors = list[torch.Tensor]
States = list[dict[str, torch.Tensor]]
Groups = list[dict[str, Any]]
"""Of weights that an optimizer treats alike, what it has for them."""
Build = Callable[[Groups], torch.optim.Optimizer]
MOVING = ("lr", "momentum", "betas")
"""What the schedule sets for each group in each step."""


class Server:
    """Some of the weights, their optimizer, and what each worker has sent. Calls come from threads, one for each worker."""

    def __init__(self, spec: ParameterServer, workers: int, build: Build) -> None:
        self._spec, self._workers, self._build = spec, workers, build
        self._changed = threading.Condition()
        self._params: list[nn.Parameter] = []
        self._optimizer: torch.optim.Optimizer | None = None
        self._places: list[int] = []
        """Which of the workers' groups each of its own is."""
        self._sent: dict[int, Tensors] = {}
        self._round, self._mean = 0, list[torch.Tensor]()
        self.version = 0
        """Steps made so far."""
        self._clocks = [0] * workers
        self.leads: dict[int, int] = {}
        """How often a worker went on so many steps ahead of the slowest."""
        self.staleness: dict[int, int] = {}
        """How often a gradient came after so many steps that its weights did not know of."""
        self._seen = [0] * workers
        self.ended: tuple[str, int] | None = None
        """Why the run is over and with which exit code, once it is."""

    def fill(self, weights: Tensors, states: States, places: list[int], groups: Groups) -> None:
        """Begin, or begin again, with these weights, what the optimizer knew of each, and which group each is in."""
        with self._changed:
            self._params = [nn.Parameter(weight.clone()) for weight in weights]
            self._places = sorted(set(places))
            own = [{**groups[at], "params": self._of(at, places)} for at in self._places]
            self._optimizer = self._build(own) if own else None
            for param, state in zip(self._params, states, strict=True):
                if state and self._optimizer is not None:
                    self._optimizer.state[param] = {key: value.clone() for key, value in state.items()}
            self._sent, self._clocks, self._seen = {}, [0] * self._workers, [self.version] * self._workers

    def _of(self, group: int, places: list[int]) -> list[nn.Parameter]:
        return [param for param, at in zip(self._params, places, strict=True) if at == group]

    def mean(self, worker: int, gradients: Tensors) -> Tensors:
        """The mean of all workers' gradients, once all of them are there; added in the order of workers."""
        with self._changed:
            turn = self._round
            self._sent[worker] = gradients
            if len(self._sent) == self._workers:
                ordered = [self._sent[each] for each in sorted(self._sent)]
                self._mean = [torch.stack(each).sum(0) / self._workers for each in zip(*ordered, strict=True)]
                self._sent, self._round = {}, turn + 1
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._round > turn or self.ended is not None)
            return self._mean

    def step(self, worker: int, gradients: Tensors | None, moving: Groups) -> Tensors:
        """Step with a gradient and give the weights. Without one, wait until another worker's is in: see `Sync`."""
        with self._changed:
            self._clocks[worker] += 1
            if gradients is not None:
                self._move(worker, gradients, moving)
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._may_go_on(worker) or self.ended is not None)
            lead = self._clocks[worker] - min(self._clocks)
            self.leads[lead] = self.leads.get(lead, 0) + 1
            self._seen[worker] = self.version
            return [param.detach().clone() for param in self._params]

    def _move(self, worker: int, gradients: Tensors, moving: Groups) -> None:
        missed = self.version - self._seen[worker]
        self.staleness[missed] = self.staleness.get(missed, 0) + 1
        self.version += 1
        if self._optimizer is None:
            return
        for group, at in zip(self._optimizer.param_groups, self._places, strict=True):
            group |= moving[at]
        for param, gradient in zip(self._params, gradients, strict=True):
            param.grad = gradient
        self._optimizer.step()

    def _may_go_on(self, worker: int) -> bool:
        match self._spec.consistency:
            case Sync():
                return self.version - self._seen[worker] > 0
            case BoundedStaleness(bound=bound):
                return self._clocks[worker] - min(self._clocks) <= bound
            case _:
                return True

    def weights(self) -> Tensors:
        with self._changed:
            return [param.detach().clone() for param in self._params]

    def states(self) -> States:
        with self._changed:
            known = {} if self._optimizer is None else self._optimizer.state
            return [{k: v.clone() for k, v in known.get(param, {}).items() if torch.is_tensor(v)} for param in self._params]

    def end(self, reason: str, code: int) -> None:
        with self._changed:
            self.ended = self.ended or (reason, code)
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Whether the run is over by then."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended is not None, seconds)


_SERVING: list[Server] = []
"""This process's own, for calls from elsewhere."""
_REACHED: list[str] = []
"""Servers that this process is connected to."""
FAREWELL_SECONDS = 10.0


def _call(name: str, *args: Any) -> Any:
    return getattr(_SERVING[0], name)(*args)


def connect(rank: int, ranks: int, patience: timedelta) -> None:
    """Meet all ranks, workers and servers, for calls from one to another. Raises SpecProblem where this torch has no RPC."""
    if not rpc.is_available():
        raise SpecProblem("distributed.strategy: this worker's torch is built without rpc; use ddp")
    if os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
        os.environ.setdefault("TP_SOCKET_IFNAME", "lo")
    options = rpc.TensorPipeRpcBackendOptions(
        num_worker_threads=ranks + 2, rpc_timeout=patience.total_seconds(), init_method="env://"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of a group that it made itself
        rpc.init_rpc(_name(rank), rank=rank, world_size=ranks, rpc_backend_options=options)  # type: ignore[no-untyped-call]  # torch has no types here


def servers_of(spec: Distributed, ranks: int) -> int:
    """How many of so many ranks serve: none where there are too few for workers too."""
    return spec.servers if isinstance(spec, ParameterServer) and ranks > spec.servers else 0


def open_server(spec: ParameterServer, rank: int, ranks: int, build: Build, patience: timedelta) -> Server:
    server = Server(spec, ranks - spec.servers, build)
    _SERVING[:] = [server]
    connect(rank, ranks, patience)
    return server


def reach_servers(world: World, servers: int, patience: timedelta) -> None:
    """As a worker. Nothing where nobody serves."""
    if servers:
        connect(world.rank, world.size + servers, patience)
        _REACHED[:] = [_name(world.size + index) for index in range(servers)]


def farewell(reason: str, code: int) -> None:
    """Tell the servers that the run is over and why; whoever does not hear it is gone already."""
    for name in _REACHED:
        with suppress(RuntimeError):
            rpc.rpc_sync(name, _call, ("end", reason, code), timeout=FAREWELL_SECONDS)
    _REACHED.clear()


def _name(rank: int) -> str:
    return f"rank{rank}"


class Servers:
    """All servers as a worker sees them. Each has whole tensors, so that about as many numbers are on each."""

    def __init__(self, spec: ParameterServer, world: World, params: list[nn.Parameter]) -> None:
        self._names = [_name(world.size + index) for index in range(spec.servers)]
        self._world, self._params = world, params
        loads = [0] * spec.servers
        self._owner = [0] * len(params)
        for index in sorted(range(len(params)), key=lambda i: (-params[i].numel(), i)):
            self._owner[index] = loads.index(min(loads))
            loads[self._owner[index]] += params[index].numel()

    def _shares(self, values: Sequence[Any]) -> list[list[Any]]:
        return [[v for v, owner in zip(values, self._owner, strict=True) if owner == at] for at in range(len(self._names))]

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """A call to each server at once; the answers."""
        calls = [rpc.rpc_async(name, _call, (method, *given)) for name, given in zip(self._names, arguments, strict=True)]
        return [call.wait() for call in calls]

    def _joined(self, shares: list[list[Any]]) -> list[Any]:
        """What servers gave for their tensors, in the order of all tensors."""
        parts = [iter(share) for share in shares]
        return [next(parts[owner]) for owner in self._owner]

    def fill(self, own: torch.optim.Optimizer) -> None:
        """Servers begin with this rank's weights and optimizer."""
        group_of = {id(param): at for at, group in enumerate(own.param_groups) for param in group["params"]}
        groups = [{key: value for key, value in group.items() if key != "params"} for group in own.param_groups]
        weights = self._shares([param.detach().cpu() for param in self._params])
        states = self._shares([{k: v.cpu() for k, v in own.state.get(p, {}).items() if torch.is_tensor(v)} for p in self._params])
        places = self._shares([group_of[id(param)] for param in self._params])
        self._ask("fill", [(*share, groups) for share in zip(weights, states, places, strict=True)])

    @torch.no_grad()
    def mean(self) -> None:
        """Every worker's gradients become their mean."""
        shares = self._shares([_sent(param) for param in self._params])
        means = self._joined(self._ask("mean", [(self._world.rank, share) for share in shares]))
        for param, gradient in zip(self._params, means, strict=True):
            param.grad = gradient.to(param.device)

    @torch.no_grad()
    def step(self, moving: Groups, *, push: bool) -> None:
        """Step with this worker's gradients, or after another's; weights are the servers' then."""
        shares: list[Any] = self._shares([_sent(param) for param in self._params]) if push else [None] * len(self._names)
        self._take(self._ask("step", [(self._world.rank, share, moving) for share in shares]))

    @torch.no_grad()
    def pull(self) -> None:
        self._take(self._ask("weights", [()] * len(self._names)))

    def states(self) -> States:
        return self._joined(self._ask("states", [()] * len(self._names)))

    def _take(self, shares: list[list[torch.Tensor]]) -> None:
        for param, weight in zip(self._params, self._joined(shares), strict=True):
            param.copy_(weight)


def _sent(param: nn.Parameter) -> torch.Tensor:
    return (torch.zeros_like(param) if param.grad is None else param.grad).detach().cpu()


class Remote(torch.optim.Optimizer):
    """The servers' optimizer in a worker's hands: what is known of weights here is a copy, taken when it is saved."""

    def __init__(self, own: torch.optim.Optimizer, servers: Servers, *, push: bool) -> None:
        self.param_groups, self.state, self.defaults = own.param_groups, own.state, own.defaults
        self._servers, self._push = servers, push

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing is computed again
        self._servers.step([{key: group[key] for key in MOVING if key in group} for group in self.param_groups], push=self._push)


class _Averaging:
    """Around the last pass of a step."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._servers.mean()


class Served:
    """A worker: a whole model, whose weights are those of the servers."""

    def __init__(self, spec: ParameterServer, objective: Objective, world: World) -> None:
        self._objective, self._world = objective, world
        self._params = [p for p in objective.parameters() if p.requires_grad]
        self._buffers = list(objective.model.buffers())
        self.servers = Servers(spec, world, self._params)
        self._sync = isinstance(spec.consistency, Sync)
        self._last: AbstractContextManager[object] = _Averaging(self.servers) if self._sync else nullcontext()
        self._optimizer: torch.optim.Optimizer | None = None
        self.outputs: Outputs = objective.model

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return self._objective(inputs, targets)  # type: ignore[no-any-return]  # modules return Any

    def exchange(self, last: bool) -> AbstractContextManager[object]:
        return self._last if last else nullcontext()

    def settle(self) -> None:
        """Everybody has the servers' weights, and rank 0 their optimizer's memory."""
        self._meet()
        for buffer in self._buffers:
            if self._world.size > 1:
                dist.broadcast(buffer, src=0)
        if not self._sync:
            self.servers.pull()
        if self._optimizer is not None and self._world.is_lead:
            for param, state in zip(self._params, self.servers.states(), strict=True):
                self._optimizer.state[param] = {k: v if v.dim() == 0 else v.to(param.device) for k, v in state.items()}
        self._meet()

    def _meet(self) -> None:
        if self._world.size > 1:
            dist.barrier()

    def begin(self, own: torch.optim.Optimizer) -> Remote:
        """The optimizer to step with; servers have the weights from here on."""
        self._optimizer = own
        self._fill()
        return Remote(own, self.servers, push=self._world.is_lead or not self._sync)

    def _fill(self) -> None:
        assert self._optimizer is not None
        if self._world.is_lead:
            self.servers.fill(self._optimizer)
        self._meet()

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """The checkpoint is back in this rank's weights and optimizer; servers begin again with it."""
        self._fill()
