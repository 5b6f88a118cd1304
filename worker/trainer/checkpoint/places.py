"""Where checkpoints are and what their files are called."""

from pathlib import Path

MANIFEST, INDEX, STATE, RANKS = "manifest.json", "shards.json", "state.json", "ranks.safetensors"
STORES = ("model", "optimizer", "best", "parts")
"""What holds tensors of the whole run; each is a file of its own where one rank has all of it."""


def directory(home: Path, step: int) -> Path:
    return home / "checkpoints" / f"step-{step:08d}"


def building(home: Path, step: int) -> Path:
    """Where a checkpoint is until it is whole."""
    target = directory(home, step)
    return target.with_name(f".building-{target.name}")


def shard(rank: int) -> str:
    return f"shard-{rank:04d}.safetensors"


def steps(home: Path) -> list[int]:
    """Steps of the checkpoints on disk, newest first, whole or not."""
    found = (home / "checkpoints").glob("step-" + "[0-9]" * 8)
    return sorted((int(path.name.removeprefix("step-")) for path in found), reverse=True)
