"""Programs for ranks: tensors cut over meshes of processes, written as a checkpoint's pieces and read back over other meshes.

What a tensor holds follows from its name and shape, so whoever reads knows what it must find.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from worker.trainer.checkpoint.boxes import Stores, lay_out, local
from worker.trainer.checkpoint.collect import collect
from worker.trainer.checkpoint.commit import commit, exchanged, manifest
from worker.trainer.checkpoint.places import INDEX, building, directory, shard
from worker.trainer.checkpoint.read import Stored
from worker.trainer.checkpoint.restore import like
from worker.trainer.checkpoint.save import _files
from worker.trainer.runtime.world import World
from worker.trainer.staging import Staging

SHAPES = {"uneven": (5, 7), "thin": (3, 4), "bias": (6,), "cube": (4, 2, 6), "single": (1, 8)}
"""Rows that do not divide, fewer rows than ranks, one dimension and three."""

PROGRAM = """
import json, os, sys
from tests.support import shard_cases
print(json.dumps([shard_cases.world_of(*one) for one in json.load(sys.stdin)]))
"""


def run_worlds(*worlds: tuple[int, list[str]]) -> list[str]:
    """Each a number of ranks and what they do in turn, `function:argument:...`; what each world's ranks complained about.

    One interpreter is started and PyTorch imported once; ranks are forked from it.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        input=json.dumps(worlds),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [str(said) for said in json.loads(done.stdout.splitlines()[-1])]


def world_of(size: int, commands: list[str]) -> str:
    """Fork the ranks and wait for them; their complaints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryFile("w+") as said:
        pids = [_rank(rank, size, port, commands, said) for rank in range(size)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        said.seek(0)
        return said.read() or ("" if set(codes) == {0} else f"exit codes {codes}")


def _rank(rank: int, size: int, port: str, commands: list[str], said: IO[str]) -> int:
    if pid := os.fork():
        return pid
    ranks = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ.update({key: str(value) for key, value in ranks.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    try:
        rank_main(rank, size, commands)
    except BaseException:
        traceback.print_exc(file=said)
        said.flush()
    finally:
        os._exit(0)


def rank_main(rank: int, size: int, commands: list[str]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo")
    world = World(rank, size, torch.device("cpu"), rank, size)
    for command in commands:
        name, *arguments = command.split(":")
        PROGRAMS[name](world, *arguments)


def content(name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(torch.tensor(shape).prod()) if shape else 1
    return (torch.arange(count, dtype=torch.float64) * 0.37 + len(name)).reshape(shape).to(dtype)


PLACEMENTS: dict[str, tuple[tuple[int, ...], tuple[Placement, ...]]] = {
    "rows-2": ((2,), (Shard(0),)),
    "columns-2": ((2,), (Shard(1),)),
    "rows-4": ((4,), (Shard(0),)),
    "hybrid": ((2, 2), (Replicate(), Shard(0))),
    "grid": ((2, 2), (Shard(0), Shard(1))),
    "grid-turned": ((2, 2), (Shard(1), Shard(0))),
    "copies": ((2, 2), (Replicate(), Replicate())),
}


def cut(how: str, name: str, whole: torch.Tensor) -> torch.Tensor:
    shape, placements = PLACEMENTS[how]
    mesh = init_device_mesh("cpu", shape)
    fitting = [p if not isinstance(p, Shard) or p.dim < whole.dim() else Replicate() for p in placements]
    return distribute_tensor(whole, mesh, fitting)


def stores(world: World, how: str) -> Stores:
    """Cut tensors, one that all ranks have, one that the last rank alone has, and numbers of several types."""
    model: dict[str, torch.Tensor] = {name: cut(how, name, content(name, shape)) for name, shape in SHAPES.items()}
    model["everywhere"] = content("everywhere", (3, 3))
    if world.rank == world.size - 1:
        model["stage"] = content("stage", (2, 5))
    half = {f"{name}.exp_avg": cut(how, name, content(name, shape, torch.bfloat16)) for name, shape in SHAPES.items()}
    steps = {f"{name}.step": torch.tensor(7.0) for name in SHAPES}
    return {"model": model, "optimizer": {**half, **steps}}


def write_pieces(world: World, home: str, tensors: Stores) -> None:
    into = Path(home)
    layout = lay_out(world, tensors, None)
    assert lay_out(world, tensors, layout) is layout
    index = layout.index()
    texts = {INDEX: index} if world.is_lead and index else {}
    written = Staging("fork").begin(into, _files(world, layout, tensors), texts, [], wait=False).outcome()
    files = exchanged(world, layout.busy, written)
    if world.is_lead:
        (into / "manifest.json").write_text(manifest(0, files))
    if world.size > 1:
        dist.barrier()


def write(world: World, home: str, how: str) -> None:
    tensors = stores(world, how)
    write_pieces(world, home, tensors)
    collect(world, tensors["model"], Path(home) / "collected.safetensors")


def read(world: World, home: str, how: str) -> None:
    """Over another mesh, each rank its box; what it must be is computed here, not read."""
    with Stored(Path(home)) as stored:
        for store, dtype, suffix in (("model", torch.float32, ""), ("optimizer", torch.bfloat16, ".exp_avg")):
            for name, shape in SHAPES.items():
                wanted = content(name, shape, dtype)
                laid_out = cut(how, name, torch.zeros(shape)) if world.size > 1 else torch.zeros(shape)
                found = like(laid_out, stored, store, name + suffix)
                expected = local(cut(how, name, wanted)) if world.size > 1 else wanted
                assert isinstance(found, DTensor) == (world.size > 1)
                assert found.dtype == dtype
                assert torch.equal(local(found), expected), (name, local(found), expected)
        assert torch.equal(stored.whole("model", "everywhere"), content("everywhere", (3, 3)))
        assert torch.equal(stored.whole("model", "stage"), content("stage", (2, 5)))
        assert stored.whole("optimizer", "bias.step").item() == 7.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(torch.relu(self.up(x)))
        return out


def _parallel(world: World) -> Net:
    """Layers cut over pairs, and each cut sharded over the two pairs."""
    torch.manual_seed(3)
    net, mesh = Net(), init_device_mesh("cpu", (2, 2), mesh_dim_names=("shard", "tensor"))
    parallelize_module(net, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    fully_shard(net, mesh=mesh["shard"])
    return net


def write_net(world: World, home: str) -> None:
    write_pieces(world, home, {"model": {name: t.detach() for name, t in _parallel(world).state_dict().items()}})


def read_net(world: World, home: str) -> None:
    torch.manual_seed(3)
    whole = Net().state_dict()
    with Stored(Path(home)) as stored:
        assert stored.names("model") == whole.keys()
        for name, tensor in whole.items():
            assert torch.equal(stored.whole("model", name), tensor), name
        if world.size == 4:
            for name, tensor in _parallel(world).state_dict().items():
                again = like(tensor.detach(), stored, "model", name)
                assert torch.equal(local(again), local(tensor))


def write_nodes(world: World, home: str, how: str) -> None:
    """Each rank on a node of its own, with a disk of its own: cut tensors, or plain ones that rank 0 alone writes."""
    os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    disk = Path(home) / f"node-{world.rank}"
    tensors: Stores = stores(world, how) if how != "whole" else {"model": {"w": torch.ones(3)}}
    layout = lay_out(world, tensors, None)
    own = _files(world, layout, tensors)
    written = Staging("fork").begin(building(disk, 7), own, {}, [], wait=False).outcome()
    assert commit(world, disk, 7, exchanged(world, layout.busy, written)) == 0
    assert directory(disk, 7).exists() == bool(own)
    assert not building(disk, 7).exists()
    if own:
        files = {file["path"] for file in json.loads((directory(disk, 7) / "manifest.json").read_text())["files"]}
        assert files >= {shard(rank) for rank in layout.busy} | own.keys()


def write_holes(world: World, home: str) -> None:
    """A tensor of which ranks say that they hold all of it, each another size."""
    with pytest.raises(RuntimeError, match="not held whole"):
        lay_out(world, {"model": {"w": torch.zeros(2 + world.rank, 2)}}, None)


PROGRAMS: dict[str, Callable[..., None]] = {
    "write": write,
    "read": read,
    "write_net": write_net,
    "read_net": read_net,
    "write_nodes": write_nodes,
    "write_holes": write_holes,
}
