"""Runs that must compute the same: more ranks, smaller micro-batches, evaluation on any number of ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.late import Late
from tests.support.same_runs import Alone, assert_same
from tests.support.trainer_runs import Nursery, blobs, final_checkpoint, finished, series, trained
from worker.trainer.data.split import split_rows
from worker.trainer.predict import load
from worker.trainer.reproducibility import build_seeds

reference = Late("sklearn.metrics")

SPEC: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [32]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9},
    # 148 training samples: the last batch of an epoch has 20, which no micro-batch and no number of ranks divides
    "training": {"epochs": 4, "batch_size": 64},
    "logging": {"interval": {"steps": 5}},
    "loss": {"type": "cross_entropy", "class_weights": "balanced", "label_smoothing": 0.1, "temperature": 1.5},
    "evaluation": {"metrics": ["accuracy", "precision", {"type": "recall", "average": "weighted"}, "f1", "auroc"]},
}


def _train(nursery: Nursery, home: Path, spec: dict[str, Any], ranks: int = 1, **data: Any) -> Path:
    return trained(
        nursery,
        home,
        spec | ({"distributed": {"processes_per_node": ranks, "strategy": "ddp"}} if ranks > 1 else {}),
        ranks,
        **data,
    )


@pytest.mark.proves("DIST-01", "DIST-04", "DIST-10", "TRAIN-03")
@pytest.mark.proves("EVAL-01", cases=["2-None"])
@pytest.mark.parametrize(("ranks", "micro"), [(1, 16), (2, None), (2, 8), (4, 16)])
def test_ranks_and_micro_batches_change_nothing(
    ranks: int, micro: int | None, nursery: Nursery, alone: Alone, tmp_path: Path
) -> None:
    spec = SPEC | {"training": SPEC["training"] | {"micro_batch_size": micro}}
    assert_same(alone(SPEC), _train(nursery, tmp_path / "parts", spec, ranks))


@pytest.mark.proves("EVAL-01")
def test_a_rank_without_samples_does_not_hang_the_others(nursery: Nursery, tmp_path: Path) -> None:
    data = blobs(count=25)  # 17 train: batches of 8, 8 and 1; 1 of 2 judged samples is on a rank of its own
    spec = SPEC | {
        "training": {"epochs": 3, "batch_size": 8},
        "data": SPEC["data"] | {"split": {"validation": 0.24, "test": 0.08}},
    }
    whole = _train(nursery, tmp_path / "whole", spec, **data)
    assert_same(whole, _train(nursery, tmp_path / "parts", spec, 4, **data))


def test_metrics_are_those_of_scikit_learn(nursery: Nursery, tmp_path: Path) -> None:
    home = _train(nursery, tmp_path / "run", SPEC, 2)
    model, data = load(final_checkpoint(home)), blobs()
    rows = split_rows(
        model.spec.data.split, len(data["y"]), torch.from_numpy(data["y"]), build_seeds(model.spec.reproducibility).split
    ).test.numpy()
    truth, shares, said = data["y"][rows], model.probabilities(data["x"][rows]), model.predict(data["x"][rows])
    got = finished(home).metrics
    options: dict[str, Any] = {"average": "macro", "zero_division": 0}
    assert got["test/accuracy"] == pytest.approx(reference.accuracy_score(truth, said), abs=1e-6)
    assert got["test/precision"] == pytest.approx(reference.precision_score(truth, said, **options), abs=1e-6)
    assert got["test/recall_weighted"] == pytest.approx(reference.recall_score(truth, said, average="weighted"), abs=1e-6)
    assert got["test/f1"] == pytest.approx(reference.f1_score(truth, said, **options), abs=1e-6)
    shares = shares.astype(np.float64) / shares.astype(np.float64).sum(1, keepdims=True)
    assert got["test/auroc"] == pytest.approx(reference.roc_auc_score(truth, shares, multi_class="ovr"), abs=1e-6)


def test_regression_metrics_are_those_of_scikit_learn(nursery: Nursery, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(90, 5)).astype(np.float32)
    y = (x @ draw.normal(size=(5, 1)) + 0.1 * draw.normal(size=(90, 1))).astype(np.float32)
    spec = SPEC | {
        "task": {"type": "regression"},
        "loss": None,
        "evaluation": {"metrics": ["mae", "rmse", "r2"]},
        "data": SPEC["data"]
        | {"split": {"strategy": "contiguous", "validation": 0.2, "test": 0.3}, "normalization": {"type": "standard"}},
        "optimizer": {"type": "adamw", "lr": 0.01},
    }
    home = _train(nursery, tmp_path / "run", spec, 2, x=x, y=y)
    said, truth, got = load(final_checkpoint(home)).predict(x[63:]), y[63:], finished(home).metrics
    assert got["test/loss"] == pytest.approx(reference.mean_squared_error(truth, said), rel=1e-5)
    assert got["test/mae"] == pytest.approx(reference.mean_absolute_error(truth, said), rel=1e-5)
    assert got["test/rmse"] == pytest.approx(reference.root_mean_squared_error(truth, said), rel=1e-5)
    assert got["test/r2"] == pytest.approx(reference.r2_score(truth, said), rel=1e-5)


@pytest.mark.proves("EVAL-07")
def test_training_loss_between_two_reports_is_the_mean_of_all_steps(nursery: Nursery, tmp_path: Path) -> None:
    fine = _train(nursery, tmp_path / "fine", SPEC | {"logging": {"interval": {"steps": 1}}, "loss": None})
    coarse = _train(nursery, tmp_path / "coarse", SPEC | {"logging": {"interval": {"steps": 5}}, "loss": None})
    each, sizes = series(fine), [64, 64, 20] * 4
    for end, begin in ((5, 0), (10, 5), (12, 10)):
        total = sum(each[step + 1, "train/loss"] * sizes[step] for step in range(begin, end))
        assert series(coarse)[end, "train/loss"] == pytest.approx(total / sum(sizes[begin:end]), rel=1e-9)
