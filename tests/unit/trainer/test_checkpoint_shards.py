"""Tensors cut over meshes of processes are written once, piece by piece, and read over any other mesh to the bit."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.shard_cases import SHAPES, content, run_worlds
from worker.trainer.checkpoint.boxes import Box, Held, arranged

WRITTEN: dict[str, tuple[int, tuple[str, ...]]] = {
    "rows-2": (2, ("columns-2",)),
    "columns-2": (2, ("rows-2",)),
    "hybrid": (4, ("grid", "rows-4")),
    "grid": (4, ("grid-turned", "hybrid")),
    "copies": (4, ("rows-4",)),
}
"""How tensors were cut when they were written, over how many ranks, and how they were cut when those ranks read them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pieces")


@pytest.fixture(scope="module")
def said(root: Path) -> dict[str, str]:
    """By case, what ranks complained about: those that wrote, and then others that read."""
    worlds: dict[str, tuple[int, list[str]]] = {}
    for how, (ranks, reads) in WRITTEN.items():
        worlds[how] = ranks, [f"write:{root / how}:{how}", *(f"read:{root / how}:{other}" for other in reads)]
        worlds[f"{how} elsewhere"] = (2 if ranks == 4 else 1), [f"read:{root / how}:rows-2"]
    worlds["net"] = 4, [f"write_net:{root / 'net'}", f"read_net:{root / 'net'}"]
    worlds["net elsewhere"] = 1, [f"read_net:{root / 'net'}"]
    worlds["nodes"] = 2, [f"write_nodes:{root / 'nodes'}:rows-2", f"write_nodes:{root / 'whole'}:whole"]
    worlds["holes"] = 2, [f"write_holes:{root}"]
    return dict(zip(worlds, run_worlds(*worlds.values()), strict=True))


@pytest.mark.parametrize("how", WRITTEN)
def test_pieces_are_read_over_other_meshes(how: str, root: Path, said: dict[str, str]) -> None:
    assert said[how] == ""
    assert said[f"{how} elsewhere"] == ""
    home = root / how
    whole = load_file(home / "collected.safetensors")
    assert whole.keys() == SHAPES.keys() | {"everywhere", "stage"}
    for name, tensor in whole.items():
        assert torch.equal(tensor, content(name, tuple(tensor.shape)))
    files = json.loads((home / "manifest.json").read_text())["files"]
    assert {file["path"] for file in files} == {path.name for path in home.iterdir()} - {"manifest.json", "collected.safetensors"}
    held = [t for file in files if file["path"].endswith(".safetensors") for t in load_file(home / file["path"]).values()]
    once = sum(content(n, s).nbytes * 3 // 2 + 4 for n, s in SHAPES.items()) + 4 * (9 + 10)
    assert sum(t.nbytes for t in held) == once, "a piece that several ranks hold is written by one of them"


def test_layers_cut_and_sharded_at_once(said: dict[str, str]) -> None:
    assert said["net"] == ""
    assert said["net elsewhere"] == ""


def test_each_node_commits_what_it_has_on_its_own_disk(said: dict[str, str]) -> None:
    assert said["nodes"] == ""


def test_pieces_that_do_not_make_a_whole_are_refused(said: dict[str, str]) -> None:
    assert said["holes"] == ""


def test_equal_boxes_are_shared_out_by_bytes() -> None:
    shared = [Held("model", f"w{i}", "F32", (10, 10), Box((0, 0), (10, 10))) for i in range(8)]
    cut = [Held("model", "cut", "F32", (4, 10), Box((2 * rank, 0), (2, 10))) for rank in range(2)]
    layout = arranged((), [(*shared, cut[0]), (*shared, cut[1])])
    assert [len(layout.sharded(rank)) for rank in range(2)] == [5, 5]
    assert layout.whole == frozenset()


def test_what_rank_0_has_whole_is_a_file_of_its_own() -> None:
    weight = Held("model", "w", "F32", (2, 2), Box((0, 0), (2, 2)))
    part = [Held("parts", "ema/w", "F32", (2, 2), Box((rank, 0), (1, 2))) for rank in range(2)]
    layout = arranged((), [(weight, part[0]), (weight, part[1])])
    assert layout.whole == {"model"}
    assert [one.store for one in layout.of(0)] == ["model", "parts"]
    assert layout.busy == [0, 1]
