"""Which box of each tensor every rank holds, and which rank writes which.

A box is a contiguous block of a tensor: the whole of it, or what a mesh of devices left to one rank. Ranks that hold the same
box write it once.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.distributed.tensor import DTensor, Partial, Replicate

from worker.trainer.checkpoint.places import shard
from worker.trainer.runtime.compat import compute_local_shape_and_global_offset
from worker.trainer.runtime.world import World
from worker.trainer.staging.sheet import CODES

Stores = Mapping[str, Mapping[str, torch.Tensor]]
"""By store and name; a DTensor is this rank's part of a tensor, a plain one is all of it."""


class Box(NamedTuple):
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class Held(NamedTuple):
    """What one rank has of one tensor."""

    store: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    """Of the whole tensor."""
    box: Box


def box_of(tensor: torch.Tensor) -> Box:
    """What of the tensor this rank has."""
    if not isinstance(tensor, DTensor):
        return Box((0,) * tensor.dim(), tuple(tensor.shape))
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Box(tuple(offset), tuple(shape))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's own memory of the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def summed(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without sums that ranks still owe each other; every rank of its mesh calls it."""
    if isinstance(tensor, DTensor) and any(isinstance(p, Partial) for p in tensor.placements):
        return tensor.redistribute(placements=[Replicate() if isinstance(p, Partial) else p for p in tensor.placements])
    return tensor


def held(stores: Stores) -> list[Held]:
    """What this rank has that is not empty."""
    found = [
        Held(store, name, CODES[tensor.dtype], tuple(tensor.shape), box_of(tensor))
        for store, tensors in sorted(stores.items())
        for name, tensor in sorted(tensors.items())  # whatever order the optimizer made them in
    ]
    return [one for one in found if math.prod(one.box.shape) or not math.prod(one.shape)]


@dataclass(frozen=True)
class Layout:
    """Who writes what, the same on every rank."""

    mine: tuple[Held, ...]
    """What this rank holds; the layout is good as long as it holds that."""
    writers: Mapping[tuple[str, str, Box], int]
    ranks: int
    whole: frozenset[str]
    """Stores of which rank 0 has all; they are files of their own."""
    everybody: tuple[tuple[Held, ...], ...]

    def of(self, rank: int) -> list[Held]:
        """What a rank writes."""
        return [one for one in self.everybody[rank] if self.writers[one.store, one.name, one.box] == rank]

    def sharded(self, rank: int) -> list[Held]:
        """What a rank writes into its shard."""
        return [one for one in self.of(rank) if one.store not in self.whole]

    @property
    def busy(self) -> list[int]:
        """Ranks that write a shard."""
        return [rank for rank in range(self.ranks) if self.sharded(rank)]

    def index(self) -> bytes:
        """shards.json."""
        stores: dict[str, dict[str, dict[str, object]]] = {}
        for rank in range(self.ranks):
            for one in self.sharded(rank):
                tensors = stores.setdefault(one.store, {})
                entry = tensors.setdefault(one.name, {"dtype": one.dtype, "shape": one.shape, "pieces": []})
                pieces = entry["pieces"]
                assert isinstance(pieces, list)
                pieces.append({"file": shard(rank), "offset": one.box.offset, "shape": one.box.shape})
        return json.dumps({"version": 1, "stores": stores}, separators=(",", ":")).encode() if stores else b""


def lay_out(world: World, stores: Stores, before: Layout | None) -> Layout:
    """Every rank calls it; ranks only speak at length when one of them holds something else than at the last save.

    Raises RuntimeError for a tensor that ranks do not hold whole between them.
    """
    mine = tuple(held(stores))
    changed = torch.tensor([float(before is None or before.mine != mine)], device=world.device)
    if before is not None and not world.most(changed).item():
        return before
    return arranged(mine, [tuple(_parsed(text)) for text in tell(world, json.dumps(mine))])


def tell(world: World, text: str) -> list[str]:
    """Everybody's text, by rank."""
    data = torch.frombuffer(bytearray(text.encode()) or bytearray(1), dtype=torch.uint8).to(world.device)
    sizes = world.gather(torch.tensor([len(data)], device=world.device)).flatten().tolist()
    padded = torch.zeros(max(sizes), dtype=torch.uint8, device=world.device)
    padded[: len(data)] = data
    return [bytes(row[:size].cpu().numpy()).decode() for row, size in zip(world.gather(padded), sizes, strict=True)]


def _parsed(text: str) -> list[Held]:
    return [
        Held(store, name, dtype, tuple(shape), Box(tuple(box[0]), tuple(box[1])))
        for store, name, dtype, shape, box in json.loads(text)
    ]


def arranged(mine: tuple[Held, ...], everybody: Sequence[tuple[Held, ...]]) -> Layout:
    """A store that rank 0 has whole is rank 0's to write; of the rest each box goes to whoever has least to write."""
    holders: dict[tuple[str, str, Box], list[int]] = {}
    shapes: dict[tuple[str, str], Held] = {}
    for rank, ones in enumerate(everybody):
        for one in ones:
            holders.setdefault((one.store, one.name, one.box), []).append(rank)
            shapes.setdefault((one.store, one.name), one)
    _covered(holders, shapes)
    stores = {store for store, _ in shapes}
    lead = {(one.store, one.name) for one in everybody[0] if one.box.shape == one.shape}
    whole = frozenset(store for store in stores if {key for key in shapes if key[0] == store} <= lead)
    load, writers = [0] * len(everybody), {}
    for key, ranks in holders.items():
        rank = 0 if key[0] in whole else min(ranks, key=lambda r: (load[r], r))
        load[rank] += math.prod(key[2].shape)
        writers[key] = rank
    return Layout(mine, writers, len(everybody), whole, tuple(everybody))


def _covered(holders: Mapping[tuple[str, str, Box], list[int]], shapes: Mapping[tuple[str, str], Held]) -> None:
    sizes: dict[tuple[str, str], int] = {}
    for store, name, box in holders:
        sizes[store, name] = sizes.get((store, name), 0) + math.prod(box.shape)
    for key, one in shapes.items():
        if sizes[key] != math.prod(one.shape):
            raise RuntimeError(f"{key[0]} {key[1]} of shape {list(one.shape)} is not held whole by the ranks together")
