"""A checkpoint whose files lie on several nodes: each stores its own, and node 0's frame names all."""

import hashlib
import json
from pathlib import Path

import pytest

from stoker.events import Saved
from stoker.protocol import BlobFile
from worker.agent.upload import pack_checkpoint, pack_shards

FILES = {"state.json": b"{}", "shard-0000.safetensors": b"left", "shard-0001.safetensors": b"right!"}
STEP = "checkpoints/step-00000007"
EVENT = Saved(step=7, path=STEP, metrics={}, final=False)


def node(home: Path, *names: str) -> Path:
    """A node's disk: the manifest of all files, and those it has."""
    place = home / STEP
    place.mkdir(parents=True)
    listed = [{"path": n, "bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in FILES.items()]
    (place / "manifest.json").write_text(json.dumps({"step": 7, "files": listed}))
    for name in names:
        (place / name).write_bytes(FILES[name])
    return home


def names(files: tuple[BlobFile, ...]) -> list[str]:
    return [file.path for file in files]


def test_every_file_is_stored_by_the_node_that_has_it(tmp_path: Path) -> None:
    first = pack_checkpoint(node(tmp_path / "a", "state.json", "shard-0000.safetensors"), EVENT, 1, nodes=2)
    second = pack_shards(node(tmp_path / "b", "shard-0001.safetensors"), EVENT, 1)
    assert names(first.files) == ["shard-0000.safetensors", "state.json", "manifest.json"]
    assert first.elsewhere == second.files
    assert (names(second.files), second.header) == (["shard-0001.safetensors"], {})
    assert {f["path"]: f["sha256"] for f in first.header["files"]}["shard-0001.safetensors"] == hashlib.sha256(
        b"right!"
    ).hexdigest()
    assert (second.root / "shard-0001.safetensors").read_bytes() == b"right!"


def test_a_node_without_shards_has_nothing_to_store(tmp_path: Path) -> None:
    assert pack_shards(node(tmp_path), EVENT, 1).files == ()


def test_on_one_node_nothing_is_waited_for(tmp_path: Path) -> None:
    assert pack_checkpoint(node(tmp_path, *FILES), EVENT, 1).elsewhere == ()


def test_a_manifest_must_be_there(tmp_path: Path) -> None:
    (tmp_path / STEP).mkdir(parents=True)
    with pytest.raises(OSError, match="manifest"):
        pack_shards(tmp_path, EVENT, 1)
