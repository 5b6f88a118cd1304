"""A run that was killed or told to stop and then went on ends with the bits of the run that never was."""

import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from stoker.events import Started
from tests.support.same_runs import assert_same_bits, interrupted
from tests.support.thorough import left
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, same_bits, series, workspace

BASE: dict[str, Any] = {
    "task": {"type": "classification"},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.1}},
    "optimizer": {"type": "adamw", "lr": 0.004},
    "evaluation": {"interval": {"steps": 13}},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
}
"""Nothing falls on the same step: losses, evaluations and checkpoints all span a resume."""

PLAIN = BASE | {
    "model": {"type": "mlp", "hidden_sizes": [64, 64], "dropout": 0.2},
    "schedule": {"type": "cosine", "warmup_steps": 9},
    "training": {"epochs": 40, "batch_size": 32, "gradient_clipping": {"type": "norm"}},
}
RICH = BASE | {
    "model": {"type": "mlp", "hidden_sizes": [48, 32], "dropout": 0.1, "normalization": {"type": "batch"}},
    "precision": {"mode": "bf16_mixed"},
    "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "schedule": {"type": "step", "step_size": {"epochs": 7}, "gamma": 0.7, "warmup_ratio": 0.1},
    "training": {
        "max_steps": 160,
        "batch_size": 32,
        "micro_batch_size": 8,
        "gradient_clipping": {"type": "value", "value": 0.5},
        "early_stopping": {"patience": 6, "monitor": "validation/accuracy"},
    },
}
WIDE = BASE | {
    # 3.2 MB of gradients in buckets of 1 MiB: with four ranks the layout of the buckets decides the order of additions
    "model": {"type": "mlp", "hidden_sizes": [512, 1024], "dropout": 0.1},
    "training": {"max_steps": 40, "batch_size": 32, "gradient_accumulation_steps": 2},
}
CASES = {
    "plain-1": (PLAIN, 1),
    "plain-2": (PLAIN, 2),
    "rich-1": (RICH, 1),
    "rich-2": (RICH, 2),
    "wide-4": (WIDE, 4),
}


def _spec(spec: dict[str, Any], ranks: int) -> dict[str, Any]:
    if ranks == 1:
        return spec
    return spec | {"distributed": {"strategy": "ddp", "processes_per_node": ranks, "bucket_cap_mb": 1}}


def _interrupted(nursery: Nursery, home: Path, ranks: int, at: int, how: signal.Signals, whom: list[int] | None) -> list[int]:
    running = nursery.start(home, ranks)
    running.reached(at)
    running.signal(how, whom)
    return running.wait()


@pytest.mark.proves("CKPT-02", cases=["plain-1", "rich-2"])
@pytest.mark.parametrize("case", left(CASES, {"plain-2", "rich-1", "wide-4"}))
def test_resumed_run_has_the_bits_of_the_uninterrupted(case: str, nursery: Nursery, tmp_path: Path) -> None:
    base, ranks = CASES[case]
    spec = _spec(base, ranks)
    whole = workspace(tmp_path / "whole", spec, **blobs())
    assert nursery.run(whole, ranks) == [0] * ranks, log(whole)
    end = finished(whole).step
    draw = random.Random(case)
    broken = workspace(tmp_path / "broken", spec, **blobs())
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        codes = _interrupted(nursery, broken, ranks, draw.randrange(1, end), how, None)
        assert set(codes) <= {0, 75, -9}, log(broken)
    if finished_or_none(broken) not in ("completed", "early_stopped"):
        assert nursery.run(broken, ranks) == [0] * ranks, log(broken)
    assert len([e for e in events(broken) if isinstance(e, Started) and e.step > 0]) > 0, "no attempt resumed"
    assert finished(broken).metrics == finished(whole).metrics
    assert series(broken) == series(whole)
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert same_bits(final_checkpoint(broken) / name, final_checkpoint(whole) / name)


def test_four_ranks_add_in_the_same_order_after_a_kill(nursery: Nursery, tmp_path: Path) -> None:
    spec = _spec(WIDE | {"training": WIDE["training"] | {"max_steps": 12}}, 4)
    whole, broken = (workspace(tmp_path / name, spec, **blobs()) for name in ("whole", "broken"))
    assert nursery.run(whole, 4) == [0] * 4, log(whole)
    interrupted(nursery, broken, 4, (8, signal.SIGKILL))
    assert_same_bits(whole, broken)


def finished_or_none(home: Path) -> str | None:
    last = events(home)[-1]
    return getattr(last, "reason", None)


@pytest.mark.parametrize("ranks", [1, 2])
def test_told_to_stop_it_saves_at_one_step_and_exits_75(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    spec = _spec(PLAIN | {"training": {"epochs": 100_000, "batch_size": 32}}, ranks)
    home = workspace(tmp_path / "run", spec, **blobs())
    codes = _interrupted(nursery, home, ranks, 20, signal.SIGTERM, [ranks - 1])  # the last rank alone is told
    assert codes == [75] * ranks, log(home)
    ends = {finished(home, rank).step for rank in range(ranks)}
    assert {finished(home, rank).reason for rank in range(ranks)} == {"preempted"}
    assert len(ends) == 1
    assert (home / "checkpoints" / f"step-{ends.pop():08d}" / "manifest.json").exists()


def test_stop_before_the_first_step_is_remembered(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", PLAIN | {"training": {"epochs": 100_000, "batch_size": 32}}, **blobs())
    running = nursery.start(home)
    while not (home / "events-rank0.jsonl").exists():
        pass
    running.signal(signal.SIGTERM)
    assert running.wait() == [75], log(home)
    assert finished(home).step == 1


def test_finished_run_started_again_only_says_so(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", PLAIN | {"training": {"epochs": 2, "batch_size": 32}}, **blobs())
    assert nursery.run(home) == [0], log(home)
    first = finished(home)
    weights = (final_checkpoint(home) / "model.safetensors").read_bytes()
    assert nursery.run(home) == [0], log(home)
    assert finished(home) == first
    assert sum(isinstance(e, Started) for e in events(home)) == 1
    assert (final_checkpoint(home) / "model.safetensors").read_bytes() == weights


def _damage_flip(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def _damage_cut(path: Path) -> None:
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:40])


def _damage_missing(path: Path) -> None:
    (path / "optimizer.safetensors").unlink()


def _damage_step(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": ', '"step": 9'))


@pytest.mark.parametrize("damage", [_damage_flip, _damage_cut, _damage_missing, _damage_step])
def test_damaged_checkpoint_is_named_and_the_one_before_used(damage: Any, nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", PLAIN | {"training": {"max_steps": 21, "batch_size": 32}}, **blobs())
    assert nursery.run(home) == [0], log(home)
    whole = series(home)
    shutil.rmtree(home / "checkpoints" / "step-00000021")
    damage(home / "checkpoints" / "step-00000014")
    assert nursery.run(home) == [0], log(home)
    said = [e for e in events(home) if e.type == "notice" and e.code == "checkpoint_corrupt"]
    assert [e.data["step"] for e in said] == [14]
    assert [e.step for e in events(home) if isinstance(e, Started)] == [0, 7]
    assert series(home) == whole


def test_all_checkpoints_damaged_is_refused(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", PLAIN | {"training": {"max_steps": 21, "batch_size": 32}}, **blobs())
    assert nursery.run(home) == [0], log(home)
    for path in (home / "checkpoints").iterdir():
        _damage_flip(path)
    assert nursery.run(home) == [2]
    assert finished(home).reason == "no_valid_checkpoint"


def test_three_newest_checkpoints_stay(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", PLAIN | {"training": {"max_steps": 50, "batch_size": 32}}, **blobs())
    (home / "checkpoints").mkdir()
    (home / "checkpoints" / ".building-step-00000001").mkdir()
    assert nursery.run(home) == [0], log(home)
    assert sorted(p.name for p in (home / "checkpoints").iterdir()) == ["step-00000042", "step-00000049", "step-00000050"]
