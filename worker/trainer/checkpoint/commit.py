"""The moment a checkpoint begins to exist: every file is on disk, then the manifest, then the name."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from worker.trainer.checkpoint.places import MANIFEST, building, directory, shard
from worker.trainer.runtime.world import World
from worker.trainer.staging import Written, flush


def exchanged(world: World, busy: Sequence[int], own: Sequence[Written]) -> list[Written]:
    """This rank's files and what the other ranks wrote; every rank calls it."""
    others = [rank for rank in busy if rank != 0]
    if not others:
        return list(own)
    mine = next((file for file in own if file.path == shard(world.rank)), None)
    row = [0] * 33 if mine is None else [mine.bytes, *bytes.fromhex(mine.sha256)]
    rows = world.gather(torch.tensor(row, device=world.device)).tolist()
    shards = [Written(shard(rank), rows[rank][0], bytes(rows[rank][1:]).hex()) for rank in others]
    return [*(file for file in own if file not in shards), *shards]


def manifest(step: int, files: Iterable[Written]) -> str:
    listed = [asdict(file) for file in sorted(files, key=lambda file: file.path)]
    return json.dumps({"version": 1, "step": step, "files": listed}, indent=1)


def commit(world: World, home: Path, step: int, files: Sequence[Written]) -> int:
    """Every rank calls it; the errno of what went wrong, the same on every rank, 0 when nothing did.

    Each node has a disk of its own, on which its first rank does what rank 0 does on the first, if anything was written there.
    """
    local, nodes = int(os.environ.get("LOCAL_RANK", "0")), world.size > int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    text = manifest(step, files) if world.is_lead else None
    if nodes:
        text = world.share(text)
    wrote = world.is_lead or (local == 0 and building(home, step).exists())
    code = write_manifest(home, step, text) if text is not None and wrote else 0
    return int(world.most(torch.tensor([code], device=world.device)).item()) if world.size > 1 else code


def write_manifest(home: Path, step: int, text: str) -> int:
    """Name the files that are on disk, and give the directory its name; the errno of what went wrong, or 0."""
    place, target = building(home, step), directory(home, step)
    try:
        (place / MANIFEST).write_text(text)
        flush(place / MANIFEST)
        flush(place)
        if target.exists():  # a damaged one of an earlier attempt
            shutil.rmtree(target)
        place.rename(target)
        flush(target.parent)
    except OSError as error:
        return error.errno or 5
    return 0
