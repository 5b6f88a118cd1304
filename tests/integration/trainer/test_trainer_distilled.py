"""A student and its teacher through the whole trainer: on one rank and on two, killed and resumed."""

import hashlib
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.same_runs import interrupted
from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, finished, log, same_bits, series, workspace

TEACHER: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [32, 24]},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.2},
        "normalization": {"type": "standard"},
    },
    "optimizer": {"type": "adamw", "lr": 0.01},
    "logging": {"interval": {"steps": 3}},
    "checkpoint": {"interval": {"steps": 7}},
    "training": {"max_steps": 30, "batch_size": 32},
}


def lesson(**fields: Any) -> dict[str, Any]:
    distillation = {"teacher": {"job": "job_0", "checkpoint": 30}, "temperature": 3.0, "alpha": 0.6, **fields}
    return TEACHER | {
        "model": {"type": "mlp", "hidden_sizes": [16, 24], "dropout": 0.1},
        "training": {"max_steps": 40, "batch_size": 32, "micro_batch_size": 8, "distillation": distillation},
    }


@pytest.fixture(scope="module")
def teacher(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = workspace(tmp_path_factory.mktemp("teacher") / "run", TEACHER, **blobs())
    assert nursery.run(home) == [0], log(home)
    return final_checkpoint(home)


def taught(home: Path, teacher: Path, spec: dict[str, Any], ranks: int = 1) -> Path:
    if ranks > 1:
        spec = spec | {
            "distributed": {"strategy": "ddp", "processes_per_node": ranks},
            "training": spec["training"] | {"micro_batch_size": 16},
        }
    workspace(home, spec, **blobs())
    shutil.copytree(teacher, home / "data" / "teacher")
    return home


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


LAYERS = {"layer_map": [{"student": "4", "teacher": "3", "weight": 0.5}]}


@pytest.mark.proves("TRAIN-12")
def test_a_student_killed_and_resumed_has_the_bits_of_one_that_was_not(nursery: Nursery, teacher: Path, tmp_path: Path) -> None:
    whole, broken = (taught(tmp_path / name, teacher, lesson(**LAYERS)) for name in ("whole", "broken"))
    assert nursery.run(whole) == [0], log(whole)
    interrupted(nursery, broken, 1, (20, signal.SIGKILL))
    assert series(broken) == series(whole)
    assert same_bits(final_checkpoint(broken) / "model.safetensors", final_checkpoint(whole) / "model.safetensors")
    assert _digests(whole / "data" / "teacher") == _digests(teacher)


def test_two_ranks_learn_what_one_does(nursery: Nursery, teacher: Path, tmp_path: Path) -> None:
    spec = lesson(layer_map=[{"student": "1", "teacher": "3", "weight": 0.5}]) | {"model": {"type": "mlp", "hidden_sizes": [24]}}
    one, two = taught(tmp_path / "one", teacher, spec), taught(tmp_path / "two", teacher, spec, 2)
    assert nursery.run(one) == [0], log(one)
    assert nursery.run(two, 2) == [0, 0], log(two)
    assert series(one)[(40, "train/loss")] == pytest.approx(series(two)[(40, "train/loss")], rel=1e-4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_map": [{"student": "0", "teacher": "0"}]}, "0 gives (1, 16), 0 of the teacher (1, 32)"),
        ({"layer_map": [{"student": "nowhere", "teacher": "0"}]}, "there is no module 'nowhere'"),
    ],
)
def test_layers_that_do_not_fit_end_the_run_before_its_first_step(
    fields: dict[str, Any], message: str, nursery: Nursery, teacher: Path, tmp_path: Path
) -> None:
    home = taught(tmp_path / "run", teacher, lesson(**fields))
    assert nursery.run(home) == [2]
    assert message in (finished(home).message or "")
    assert finished(home).step == 0


def test_a_teacher_that_is_gone_or_damaged_is_said(nursery: Nursery, teacher: Path, tmp_path: Path) -> None:
    home = workspace(tmp_path / "none", lesson(), **blobs())
    assert nursery.run(home) == [2]
    assert "checkpoint 30 of job_0 is no longer there" in (finished(home).message or "")
    broken = taught(tmp_path / "broken", teacher, lesson())
    (broken / "data" / "teacher" / "model.safetensors").write_bytes(b"no tensors")
    assert nursery.run(broken) == [2]
    assert "cannot be used" in (finished(broken).message or "")
