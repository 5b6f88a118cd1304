"""Losses through the whole program: what is reported, and what one and two ranks learn, against NumPy and against other data."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.support.late import Late
from tests.support.trainer_runs import Nursery, final_checkpoint, log, series, tensors
from worker.trainer.predict import load

special = Late("scipy.special")

ROWS, HELD = 61, 12
"""Rows of a table, and those of them that validate: the last ones."""
Json = dict[str, Any]
Values = npt.NDArray[np.float64]


def features() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)


def kinds() -> npt.NDArray[np.int64]:
    return (np.arange(ROWS) * 5 % 7 % 3).astype(np.int64)


def flags() -> npt.NDArray[np.int64]:
    return np.stack((features()[:, 0] > 0.3, features()[:, 1] > -0.2), 1).astype(np.int64)


def table(home: Path, columns: Mapping[str, npt.NDArray[Any]], spec: Json) -> Path:
    """A directory to run in, with columns as a CSV file."""
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (data / "rows.csv").write_text("\n".join([",".join(columns), *lines]) + "\n")
    (home / "spec.json").write_text(json.dumps(spec))
    return home


def job(task: Json, loss: Json | None, *, ranks: int, **data: Any) -> Json:
    spread = {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"}
    return {
        "task": task,
        "model": {"type": "mlp", "hidden_sizes": [5], "activation": "tanh"},
        "data": {
            "source": {"type": "csv", "dataset": "set@1", "columns": ["a", "b", "c"]},
            "split": {"validation": HELD / ROWS, "test": 0.0, "strategy": "contiguous"},
            **data,
        },
        **({} if loss is None else {"loss": loss}),
        "optimizer": {"type": "sgd", "lr": 0.1},
        "training": {"epochs": 2, "batch_size": 10},
        "distributed": spread,
    }


def columns(**more: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    return {**dict(zip("abc", features().T, strict=True)), **more}


def _right(outputs: Values, truth: npt.NDArray[np.int64]) -> Values:
    return np.where(truth > 0, special.expit(outputs), special.expit(-outputs))


def nll(outputs: Values) -> float:
    return float(-special.log_softmax(outputs, axis=1)[np.arange(HELD), kinds()[-HELD:]].mean())


def focal(outputs: Values) -> float:
    chance = special.softmax(outputs, axis=1)[np.arange(HELD), kinds()[-HELD:]]
    return float((np.array([1.0, 2.0, 0.5])[kinds()[-HELD:]] * (1 - chance) ** 1.5 * -np.log(chance)).mean())


def bce(outputs: Values) -> float:
    truth = flags()[-HELD:]
    return float((np.where(truth > 0, 2.0, 1.0) * -np.log(_right(outputs, truth))).mean())


def numbers(of: Any) -> Any:
    return lambda outputs: float(np.mean(of(outputs, features()[-HELD:, :2] * 2 + 1)))


def _gaussian(outputs: Values, truth: Values) -> Values:
    spread = np.logaddexp(0, outputs[:, 2:]) + 1e-6
    found: Values = (np.log(spread) + (outputs[:, :2] - truth) ** 2 / spread) / 2
    return found


def _huber(outputs: Values, truth: Values) -> Values:
    apart = np.abs(outputs - truth)
    return np.where(apart <= 0.5, apart**2 / 2, 0.5 * (apart - 0.25))


CLASSES: Json = {"type": "classification", "target": "kind"}
LABELS: Json = {"type": "multilabel", "target": ["first", "second"]}
NUMBERS: Json = {"type": "regression", "target": ["p", "q"]}
CASES: dict[str, tuple[Json, Json, Any]] = {
    "nll": (CLASSES, {"type": "nll"}, nll),
    "focal": (CLASSES, {"type": "focal", "alpha": [1.0, 2.0, 0.5], "gamma": 1.5}, focal),
    "bce": (LABELS, {"type": "bce", "pos_weight": 2.0}, bce),
    "mae": (NUMBERS, {"type": "mae"}, numbers(lambda said, truth: np.abs(said - truth))),
    "huber": (NUMBERS, {"type": "huber", "delta": 0.5}, numbers(_huber)),
    "gaussian_nll": (NUMBERS, {"type": "gaussian_nll"}, numbers(_gaussian)),
}


@pytest.mark.proves("ARCH-27", cases=["bce"])
@pytest.mark.proves("LOSS-01", cases=["huber"])
@pytest.mark.proves("LOSS-02", cases=["mae"])
@pytest.mark.proves("LOSS-05", cases=["bce", "gaussian_nll", "nll"])
@pytest.mark.proves("LOSS-06", "LOSS-07", "LOSS-08", cases=["focal"])
@pytest.mark.parametrize("kind", CASES)
def test_what_is_reported_is_the_loss_of_the_saved_model(kind: str, nursery: Nursery, tmp_path: Path) -> None:
    """On one rank and on two, which learn the same; the loss of the validation split follows from the model's outputs by NumPy."""
    task, loss, formula = CASES[kind]
    targets = {"kind": kinds(), "first": flags()[:, 0], "second": flags()[:, 1]}
    targets |= {"p": features()[:, 0] * 2 + 1, "q": features()[:, 1] * 2 + 1}
    used = {name: targets[name] for name in ([task["target"]] if isinstance(task["target"], str) else task["target"])}
    learned = []
    for ranks in (1, 2):
        home = table(tmp_path / str(ranks), columns(**used), job(task, loss, ranks=ranks))
        assert nursery.run(home, ranks) == [0] * ranks, log(home)
        learned.append(tensors(final_checkpoint(home) / "model.safetensors"))
    for name, tensor in learned[0].items():
        torch.testing.assert_close(learned[1][name], tensor, atol=1e-6, rtol=1e-5)
    model = load(final_checkpoint(home))
    outputs = model.outputs(features()[-HELD:]).astype(np.float64)
    last = max(step for step, key in series(home) if key == "validation/loss")
    assert series(home)[last, "validation/loss"] == pytest.approx(formula(outputs), rel=1e-5)
    said = model.predict(features()[-HELD:])
    match task["type"]:
        case "classification":
            assert series(home)[last, "validation/accuracy"] == pytest.approx((said == kinds()[-HELD:]).mean())
        case "multilabel":
            assert series(home)[last, "validation/accuracy"] == pytest.approx((said == flags()[-HELD:]).mean())
        case _:
            apart = np.abs(said - (features()[-HELD:, :2] * 2 + 1))
            assert series(home)[last, "validation/mae"] == pytest.approx(apart.mean(), rel=1e-5)


@pytest.mark.proves("LOSS-06")
@pytest.mark.parametrize("ranks", [1, 2])
def test_focal_without_focus_learns_what_cross_entropy_does(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """To the bit; with focus it learns something else."""
    learned = {}
    for name, loss in (
        ("plain", {"type": "cross_entropy"}),
        ("unfocused", {"type": "focal", "gamma": 0.0, "alpha": 1.0}),
        ("focused", {"type": "focal", "gamma": 2.0}),
    ):
        home = table(tmp_path / name, columns(kind=kinds()), job(CLASSES, loss, ranks=ranks))
        assert nursery.run(home, ranks) == [0] * ranks, log(home)
        learned[name] = tensors(final_checkpoint(home) / "model.safetensors")
    for name, tensor in learned["plain"].items():
        assert torch.equal(learned["unfocused"][name], tensor), name
        assert (learned["focused"][name] - tensor).abs().max() > 1e-4, name


@pytest.mark.proves("LOSS-01", cases=["numbers"])
@pytest.mark.proves("LOSS-10")
@pytest.mark.parametrize(
    ("task", "ranks"),
    [(CLASSES, 1), (CLASSES, 2), (NUMBERS, 1), (LABELS, 2)],
    ids=["classes", "classes-2", "numbers", "labels-2"],
)
def test_weights_of_samples_are_rows_that_come_often(task: Json, ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    """Two for a row that is there twice, zero for one that is not there: whole batches of both learn the same."""
    weights = np.arange(ROWS) % 3
    targets = {"kind": kinds(), "first": flags()[:, 0], "second": flags()[:, 1], "p": features()[:, 0], "q": features()[:, 1]}
    used = {name: targets[name] for name in ([task["target"]] if isinstance(task["target"], str) else task["target"])}
    rows = np.repeat(np.arange(ROWS), weights)
    everything = {"split": {"validation": 0.0, "test": 0.0}}
    spec = job(task, None, ranks=ranks, **everything, sample_weight_column="weight")
    spec["training"] = {"max_steps": 5, "batch_size": 1000 * ranks, "micro_batch_size": 1000}
    weighted = table(tmp_path / "weighted", columns(**used, weight=weights), spec)
    plain = job(task, None, ranks=1, **everything)
    plain["training"] = {"max_steps": 5, "batch_size": 1000}
    often = table(tmp_path / "often", {name: values[rows] for name, values in columns(**used).items()}, plain)
    assert nursery.run(weighted, ranks) == [0] * ranks, log(weighted)
    assert nursery.run(often) == [0], log(often)
    expected = tensors(final_checkpoint(often) / "model.safetensors")
    for name, tensor in tensors(final_checkpoint(weighted) / "model.safetensors").items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def _language(home: Path, *, tied: bool, chunk: int | None, strategy: str) -> Path:
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    (data / "words.txt").write_text("all work and no play makes jack a dull boy. " * 40)
    spread = {"strategy": strategy} if strategy == "single" else {"strategy": strategy, "processes_per_node": 2}
    spec = {
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2, "tie_embeddings": tied},
        "data": {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": 16}},
        "loss": {"type": "cross_entropy", "z_loss": 0.001, "chunk_tokens": chunk},
        "optimizer": {"type": "sgd", "lr": 0.1},
        "training": {"max_steps": 4, "batch_size": 8},
        "distributed": spread,
    }
    (home / "spec.json").write_text(json.dumps(spec))
    return home


@pytest.mark.proves("LOSS-03")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_logits_in_parts_learn_what_logits_at_once_do(tied: bool, nursery: Nursery, tmp_path: Path) -> None:
    """Alone, with copies and in shards: weights after some steps, and what is reported on the way."""
    whole = _language(tmp_path / "whole", tied=tied, chunk=None, strategy="single")
    assert nursery.run(whole) == [0], log(whole)
    expected, reported = tensors(final_checkpoint(whole) / "model.safetensors"), series(whole)
    for strategy, ranks in (("single", 1), ("ddp", 2), ("fsdp", 2)):
        home = _language(tmp_path / strategy, tied=tied, chunk=10, strategy=strategy)
        assert nursery.run(home, ranks) == [0] * ranks, log(home)
        for name, tensor in tensors(final_checkpoint(home) / "model.safetensors").items():
            torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)
        for key, value in series(home).items():
            assert value == pytest.approx(reported[key], rel=1e-5), key
