"""Which checkpoint a run continues from."""

import json
import os
import shutil
from pathlib import Path

import torch

from stoker.events import Notice
from worker.trainer.checkpoint.places import INDEX, MANIFEST, RANKS, STATE, directory, steps
from worker.trainer.errors import NoValidCheckpoint
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import World
from worker.trainer.staging import digest

NONE_YET, ALL_DAMAGED = -1, -2
NEEDED = {RANKS, STATE, "spec.json", "data.json"}
WHOLE = {"model.safetensors", "optimizer.safetensors"}
"""Needed too where there are no shards."""


def find(home: Path, world: World, journal: Journal) -> Path | None:
    """The newest checkpoint whose files are all what its manifest says, the same on every rank; None when there is none at all.

    Says which ones are damaged. Raises NoValidCheckpoint when all are.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:  # each node has a disk of its own
        for remains in (home / "checkpoints").glob(".building-*"):
            shutil.rmtree(remains, ignore_errors=True)
    choice = _choose(home, journal) if world.is_lead else 0
    agreed = int(world.broadcast(torch.tensor([choice], device=world.device)).item())
    if agreed == ALL_DAMAGED:
        raise NoValidCheckpoint("every checkpoint of the job is damaged; `stoker retry --from-start` begins again")
    return None if agreed == NONE_YET else directory(home, agreed)


def _choose(home: Path, journal: Journal) -> int:
    found = steps(home)
    for step in found:
        damage = inspect(directory(home, step))
        if damage is None:
            return step
        journal.write(
            Notice(
                level="warning",
                code="checkpoint_corrupt",
                message=f"checkpoint {step} is damaged ({damage}); the one before is used",
                data={"step": step},
            )
        )
    return ALL_DAMAGED if found else NONE_YET


def inspect(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, in a few words; None when it is whole."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        files = {str(entry["path"]): (int(entry["bytes"]), str(entry["sha256"])) for entry in manifest["files"]}
        if f"step-{int(manifest['step']):08d}" != path.name:
            return "its manifest is that of another step"
    except (OSError, ValueError, KeyError, TypeError):
        return "no readable manifest"
    if not files.keys() >= (NEEDED if INDEX in files else NEEDED | WHOLE):
        return "files are missing in the manifest"
    for name, (size, sha256) in files.items():
        if name != Path(name).name or not (path / name).is_file() or (path / name).stat().st_size != size:
            return f"{name} is missing or has another size"
        if digest(path / name) != sha256:
            return f"{name} has another content"
    return None
