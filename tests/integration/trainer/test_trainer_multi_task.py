"""Several tasks on one trunk, through whole runs, against NumPy: gradients, frozen heads, learned weights, resumes and ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stoker.events import Finished, Metrics
from stoker.facts import ColumnFacts, DatasetFacts, TableFacts
from stoker.plan import plan
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, same_bits, series, tensors
from worker.trainer.data.split import split_rows
from worker.trainer.predict import load
from worker.trainer.reproducibility import build_seeds

Floats = npt.NDArray[np.float64]
ROWS, KINDS = 90, ("ant", "bee", "cat")
TASKS: list[dict[str, Any]] = [
    {"type": "classification", "name": "kind", "target": "kind", "weight": 0.7},
    {"type": "regression", "name": "place", "target": ["u", "v"], "weight": 2.5},
    {"type": "regression", "name": "size", "target": "w", "weight": 1.3, "loss": {"type": "mae"}},
]
HEADS = ("kind", "place", "size")


def rows() -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats]:
    """Features, and what the three tasks ask."""
    draw = np.random.default_rng(7)
    x = draw.normal(size=(ROWS, 4)).round(4)
    kind = (x @ draw.normal(size=(4, 3))).argmax(1)
    place = (x @ draw.normal(size=(4, 2)) + 0.1 * draw.normal(size=(ROWS, 2))).round(4)
    return x, kind, place, (x[:, 0] ** 2 + 0.1 * draw.normal(size=ROWS)).round(4)


def spec(tasks: list[dict[str, Any]] = TASKS, weighting: str = "fixed", **sections: Any) -> JobSpec:
    numbers = [ColumnFacts(name=name, kind="number") for name in ("a", "b", "c", "d", "u", "v", "w")]
    kind = ColumnFacts(name="kind", kind="string", distinct=3, counts=dict.fromkeys(KINDS, 30))
    table = TableFacts(format="csv", rows=ROWS, columns=(*numbers[:4], kind, *numbers[4:]))
    job = {
        "task": {"type": "multi_task", "tasks": tasks, "weighting": {"type": weighting}},
        "model": {"type": "mlp", "hidden_sizes": [5], "activation": "tanh"},
        "data": {"source": {"type": "csv", "dataset": "set@1"}, "split": {"validation": 0.2}},
        "optimizer": {"type": "sgd", "lr": 0.1},
        "training": {"max_steps": 1, "batch_size": 72},
    } | sections
    facts = DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1, content=table)
    return completed(JobSpec.model_validate_json(json.dumps(job)), facts)


def workspace(home: Path, made: JobSpec) -> Path:
    x, kind, place, size = rows()
    (home / "data" / "set@1").mkdir(parents=True)
    lines = [",".join(map(str, (*f, KINDS[k], *p, s))) for f, k, p, s in zip(x, kind, place, size, strict=True)]
    (home / "data" / "set@1" / "rows.csv").write_text("\n".join(["a,b,c,d,kind,u,v,w", *lines]) + "\n")
    (home / "spec.json").write_text(made.model_dump_json())
    return home


def run(nursery: Nursery, home: Path, made: JobSpec, ranks: int = 1) -> Path:
    assert nursery.run(workspace(home, made), ranks) == [0] * ranks, log(home)
    return final_checkpoint(home)


def weights(checkpoint: Path) -> dict[str, Floats]:
    return {name: tensor.double().numpy() for name, tensor in tensors(checkpoint / "model.safetensors").items()}


def gradients(w: dict[str, Floats], task: str) -> dict[str, Floats]:
    """Of one task's own mean loss over the first 72 rows, by hand: (weights by name) of trunk and of its head."""
    x, kind, place, size = (values[:72] for values in rows())
    hidden = np.tanh(x @ w["0.weight"].T + w["0.bias"])
    said = hidden @ w[f"2.head_{task}.weight"].T + w[f"2.head_{task}.bias"]
    match task:
        case "kind":
            chances = np.exp(said - said.max(1, keepdims=True))
            back = (chances / chances.sum(1, keepdims=True) - np.eye(3)[kind]) / 72
        case "place":
            back = 2 * (said - place) / (72 * 2)
        case _:
            back = np.sign(said - size[:, None]) / 72
    below = (back @ w[f"2.head_{task}.weight"]) * (1 - hidden**2)
    return {
        "0.weight": below.T @ x,
        "0.bias": below.sum(0),
        f"2.head_{task}.weight": back.T @ hidden,
        f"2.head_{task}.bias": back.sum(0),
    }


IN_ORDER = {"data": {"source": {"type": "csv", "dataset": "set@1"}, "split": {"strategy": "contiguous", "validation": 0.2}}}


def before_and_after(nursery: Nursery, home: Path, tasks: list[dict[str, Any]], **more: Any) -> tuple[dict[str, Floats], ...]:
    """Weights as a run starts with them, and after one step."""
    still = spec(tasks, **(IN_ORDER | more | {"optimizer": {"type": "sgd", "lr": 1e-12}}))
    moved = spec(tasks, **(IN_ORDER | more))
    return weights(run(nursery, home / "still", still)), weights(run(nursery, home / "moved", moved))


@pytest.mark.proves("TRAIN-13")
def test_the_trunk_moves_by_the_weighted_sum_of_the_gradients_of_single_tasks(nursery: Nursery, tmp_path: Path) -> None:
    before, after = before_and_after(nursery, tmp_path, TASKS)
    single = {task["name"]: gradients(before, task["name"]) for task in TASKS}
    for name in ("0.weight", "0.bias"):
        expected = sum(task["weight"] * single[task["name"]][name] for task in TASKS)
        np.testing.assert_allclose((before[name] - after[name]) / 0.1, expected, atol=3e-6)
    for task in TASKS:
        for part in ("weight", "bias"):
            name = f"2.head_{task['name']}.{part}"
            expected = task["weight"] * single[task["name"]][name]
            np.testing.assert_allclose((before[name] - after[name]) / 0.1, expected, atol=3e-6)


@pytest.mark.proves("TRAIN-13")
@pytest.mark.parametrize("weighting", ["fixed", "uncertainty"])
def test_a_task_that_weighs_nothing_leaves_its_head_to_the_bit(nursery: Nursery, tmp_path: Path, weighting: str) -> None:
    """Under momentum and weight decay too; the others learn as if it were not there."""
    tasks = [TASKS[0], TASKS[1] | {"weight": 0.0}, TASKS[2]]
    adamw = {"type": "adamw", "lr": 0.05, "weight_decay": 0.3}
    still = spec(tasks, weighting, optimizer=adamw | {"lr": 1e-12})
    long = spec(tasks, weighting, optimizer=adamw, training={"max_steps": 20, "batch_size": 16})
    one = tensors(run(nursery, tmp_path / "one", still) / "model.safetensors")
    many = tensors(run(nursery, tmp_path / "many", long) / "model.safetensors")
    unchanged = {name for name in one if one[name].numpy().tobytes() == many[name].numpy().tobytes()}
    frozen = {"2.head_place.weight", "2.head_place.bias"} | ({"2.log_variance_place"} if weighting == "uncertainty" else set())
    assert unchanged == frozen
    reported = finished(tmp_path / "many").metrics
    assert reported["validation/place_loss"] > 0, "it is judged all the same"
    learned = 0.7 * reported["validation/kind_loss"] + 1.3 * reported["validation/size_loss"]
    if weighting == "fixed":
        assert reported["validation/loss"] == pytest.approx(learned, abs=1e-6)


@pytest.mark.proves("TRAIN-13")
def test_learned_weights_follow_kendall_gal_and_cipolla(nursery: Nursery, tmp_path: Path) -> None:
    """One step by hand: d/ds of w (h exp(-s) loss + s / 2) at s = 0, h = 1/2 for squared errors and 1 else."""
    still = spec(weighting="uncertainty", **(IN_ORDER | {"optimizer": {"type": "sgd", "lr": 1e-12}}))
    before = weights(run(nursery, tmp_path / "still", still))
    after = weights(run(nursery, tmp_path / "moved", spec(weighting="uncertainty", **IN_ORDER)))
    x, kind, place, size = (values[:72] for values in rows())
    hidden = np.tanh(x @ before["0.weight"].T + before["0.bias"])
    said = {name: hidden @ before[f"2.head_{name}.weight"].T + before[f"2.head_{name}.bias"] for name in HEADS}
    chances = np.log(np.exp(said["kind"]).sum(1)) - said["kind"][np.arange(72), kind]
    losses = {
        "kind": chances.mean(),
        "place": ((said["place"] - place) ** 2).mean(),
        "size": abs(said["size"][:, 0] - size).mean(),
    }
    for task in TASKS:
        name = task["name"]
        half = 0.5 if name == "place" else 1.0
        expected = task["weight"] * (0.5 - half * losses[name])
        assert (before[f"2.log_variance_{name}"] - after[f"2.log_variance_{name}"]).item() / 0.1 == pytest.approx(
            expected, abs=3e-6
        )
    trunk = sum(t["weight"] * (0.5 if t["name"] == "place" else 1) * gradients(before, t["name"])["0.weight"] for t in TASKS)
    np.testing.assert_allclose((before["0.weight"] - after["0.weight"]) / 0.1, trunk, atol=3e-6)


LONG: dict[str, Any] = {
    "optimizer": {"type": "adamw", "lr": 0.02},
    "training": {
        "max_steps": 24,
        "batch_size": 16,
        "ema": {},
        "early_stopping": {"monitor": "validation/kind_accuracy", "patience": 1000},
    },
    "evaluation": {"interval": {"steps": 6}},
    "checkpoint": {"interval": {"steps": 9}, "monitor": "validation/place_rmse", "export": ["safetensors"]},
    "logging": {"interval": {"steps": 6}},
}


@pytest.fixture(scope="module")
def whole(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of learned weights with an average, judged by single tasks."""
    home = tmp_path_factory.mktemp("multi") / "whole"
    run(nursery, home, spec(weighting="uncertainty", **LONG))
    return home


def test_a_resumed_run_ends_with_the_same_bits(nursery: Nursery, whole: Path, tmp_path: Path) -> None:
    home = workspace(tmp_path / "resumed", spec(weighting="uncertainty", **LONG))
    broken = "import worker.trainer.loop as l; s = l.step\ndef step(run):\n    if run.clock.step == 13: import os; os._exit(9)\n    s(run)\nl.step = step"
    assert nursery.run(home, inject=broken) == [9]
    assert nursery.run(home) == [0], log(home)
    assert same_bits(final_checkpoint(home) / "model.safetensors", final_checkpoint(whole) / "model.safetensors")
    assert same_bits(final_checkpoint(home) / "optimizer.safetensors", final_checkpoint(whole) / "optimizer.safetensors")
    assert series(home) == series(whole)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_learn_what_one_learns(nursery: Nursery, whole: Path, tmp_path: Path, strategy: str) -> None:
    spread = {"distributed": {"strategy": strategy, "processes_per_node": 2}}
    last = run(nursery, tmp_path / "two", spec(weighting="uncertainty", **(LONG | spread)), ranks=2)
    one, two = weights(final_checkpoint(whole)), weights(last)
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-6)
    alone, together = finished(whole).metrics, finished(tmp_path / "two").metrics
    assert together == pytest.approx(alone, abs=1e-5)


def test_metrics_are_those_of_each_task_and_of_the_weights_that_are_kept(whole: Path) -> None:
    """From the checkpoint alone, by NumPy, over the validation rows that the run's own report is about."""
    model = load(final_checkpoint(whole))
    x, kind, place, size = rows()
    said = {
        "kind": model.predict(x, task="kind"),
        "place": model.predict(x, task="place"),
        "size": model.predict(x, task="size"),
    }
    assert set(said["kind"]) <= set(KINDS)
    assert said["place"].shape == (ROWS, 2)
    chances = model.probabilities(x, task="kind")
    np.testing.assert_allclose(chances.sum(1), 1, atol=1e-6)
    held = _validation_rows()
    metrics = finished(whole).metrics
    assert metrics["validation/kind_accuracy"] == pytest.approx((said["kind"][held] == np.array(KINDS)[kind[held]]).mean())
    assert metrics["validation/kind_loss"] == pytest.approx(-np.log(chances[held, kind[held]]).mean(), abs=1e-6)
    errors = said["place"][held] - place[held]
    assert metrics["validation/place_rmse"] == pytest.approx(np.sqrt((errors**2).mean()), abs=1e-6)
    assert metrics["validation/place_loss"] == pytest.approx((errors**2).mean(), abs=1e-6)
    assert metrics["validation/size_mae"] == pytest.approx(abs(said["size"][held, 0] - size[held]).mean(), abs=1e-6)
    s = {name: metrics[f"validation/{name}_log_variance"] for name in HEADS}
    half = {"kind": 1.0, "place": 0.5, "size": 1.0}
    total = sum(
        t["weight"] * (half[t["name"]] * np.exp(-s[t["name"]]) * metrics[f"validation/{t['name']}_loss"] + s[t["name"]] / 2)
        for t in TASKS
    )
    assert metrics["validation/loss"] == pytest.approx(total, abs=1e-6)
    with pytest.raises(ValueError, match="kind, place, size"):
        model.predict(x)
    trained = [e for e in events(whole) if isinstance(e, Metrics) and "train/kind_log_variance" in e.values]
    assert len(trained) == 4
    exported = json.loads((whole / "artifacts" / "export" / "safetensors" / "config.json").read_text())
    assert [task["name"] for task in exported["tasks"]] == list(HEADS)


def _validation_rows() -> npt.NDArray[np.int64]:
    """A fifth of the rows, as the run's seed takes them."""
    made = spec(**LONG)
    return split_rows(made.data.split, ROWS, None, build_seeds(made.reproducibility).split).validation.numpy()


def test_the_plan_counts_heads_and_log_variances_exactly(whole: Path) -> None:
    made = spec(weighting="uncertainty", **LONG)
    table = TableFacts(
        format="csv",
        rows=ROWS,
        columns=tuple(ColumnFacts(name=name, kind="number") for name in ("a", "b", "c", "d", "kind", "u", "v", "w")),
    )
    planned = plan(made, DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1, content=table))
    assert planned.parameters.total == 5 * 4 + 5 + 6 * (3 + 2 + 1) + 3
    held = weights(final_checkpoint(whole))
    assert planned.parameters.total == sum(values.size for values in held.values())
    size = sum(path.stat().st_size for path in final_checkpoint(whole).iterdir() if path.is_file())
    assert abs(planned.checkpoint.total_bytes - size) < 0.15 * size
    assert isinstance(events(whole)[-1], Finished)
