"""Labels that are each there or not: their metrics against scikit-learn, their data, and weights of samples that cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.spec.data import Data
from stoker.spec.evaluation import F1, R2, Accuracy, Auroc, Mae, PrecisionScore, Recall
from stoker.spec.loss import CrossEntropy
from tests.support.late import Late
from tests.support.samples import targets_of
from worker.trainer.data import Dataset, Wanted, build_data
from worker.trainer.errors import DataProblem, SpecProblem
from worker.trainer.evaluation.metrics import Measured, build_measure
from worker.trainer.loss import build_weighted_loss
from worker.trainer.runtime.world import World

sklearn = Late("sklearn.metrics")

CROSS_ENTROPY = CrossEntropy()
CPU = torch.device("cpu")
ALONE = World(0, 1, torch.device("cpu"), 0, 1)
DRAW = np.random.default_rng(3)
SAID = DRAW.normal(size=(80, 4)).astype(np.float32)
TRUTH = (SAID + DRAW.normal(size=SAID.shape) > 0.4).astype(np.int64)
CALLED = (SAID >= 0).astype(np.int64)


def measured(metric: Measured, said: np.ndarray[Any, Any] = SAID, truth: np.ndarray[Any, Any] = TRUTH) -> float:
    """In ragged batches, one of them empty."""
    measure = build_measure(metric, said.shape[1], CPU, labels=True)
    for part in (slice(0, 33), slice(33, 33), slice(33, None)):
        measure.update(torch.from_numpy(said[part]), torch.from_numpy(truth[part]).float())
    return measure.compute()


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize(
    ("metric", "reference"), [(PrecisionScore, "precision"), (Recall, "recall"), (F1, "f1")], ids=["precision", "recall", "f1"]
)
def test_scores_of_labels_are_scikit_learns(metric: Any, reference: str, average: str) -> None:
    assert measured(metric(average=average)) == pytest.approx(
        getattr(sklearn, f"{reference}_score")(TRUTH, CALLED, average=average), rel=1e-9
    )


def test_accuracy_is_the_share_of_labels_that_are_right() -> None:
    assert measured(Accuracy()) == pytest.approx((TRUTH == CALLED).mean())
    assert measured(Accuracy()) == pytest.approx(1 - sklearn.hamming_loss(TRUTH, CALLED))


def test_area_of_labels_leaves_out_those_without_two_sides() -> None:
    assert measured(Auroc()) == pytest.approx(sklearn.roc_auc_score(TRUTH, SAID, average="macro"), rel=1e-6)
    never = TRUTH.copy()
    never[:, 2] = 0
    kept = [0, 1, 3]
    expected = sklearn.roc_auc_score(never[:, kept], SAID[:, kept], average="macro")
    assert measured(Auroc(), truth=never) == pytest.approx(expected, rel=1e-6)
    assert np.isnan(measured(Auroc(), truth=np.zeros_like(TRUTH)))


@pytest.mark.proves("ARCH-27")
def test_one_label_is_a_binary_classification() -> None:
    one, truth = SAID[:, :1], TRUTH[:, :1]
    assert measured(Auroc(), one, truth) == pytest.approx(sklearn.roc_auc_score(truth[:, 0], one[:, 0]), rel=1e-6)
    assert measured(F1(), one, truth) == pytest.approx(sklearn.f1_score(truth[:, 0], CALLED[:, 0]), rel=1e-9)
    assert measured(Accuracy(), one, truth) == pytest.approx(sklearn.accuracy_score(truth[:, 0], CALLED[:, 0]), rel=1e-9)


@pytest.mark.parametrize("metric", [Accuracy(top_k=2), Mae(), R2()], ids=str)
def test_metrics_of_something_else_are_refused(metric: Measured) -> None:
    with pytest.raises(SpecProblem, match=r"evaluation\.metrics"):
        build_measure(metric, 4, CPU, labels=True)


def read(home: Path, rows: str, wanted: Wanted, **source: Any) -> Dataset:
    folder = home / "data" / "set@1"
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text(rows)
    spec = Data.model_validate(
        {
            "source": {"type": "csv", "dataset": "set@1", **source},
            "split": {"validation": 0.0, "test": 0.0, "strategy": "contiguous"},
            "sample_weight_column": wanted.weights,
        }
    )
    return build_data(spec, wanted, None, home, seed=1, world=ALONE, learned=None)


def test_labels_are_columns_of_zeros_and_ones(tmp_path: Path) -> None:
    data = read(tmp_path, "a,b,u,v\n1,2,0,1\n3,4,1,1\n", Wanted(False, ("u", "v"), labels=True))
    assert targets_of(data.train).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert (data.about.outputs, data.about.columns) == (2, ("a", "b"))


def test_anything_else_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match="v: row 2 holds 2; labels are 0 and 1"):
        read(tmp_path, "a,u,v\n1,0,1\n3,1,2\n", Wanted(False, ("u", "v"), labels=True))


def test_weights_travel_with_the_targets_and_are_no_feature(tmp_path: Path) -> None:
    data = read(tmp_path, "a,w,y\n1,0.5,0\n3,2,1\n", Wanted(True, ("y",), weights="w"))
    assert data.about.columns == ("a",)
    assert targets_of(data.train).tolist() == [[0.0, 0.5], [1.0, 2.0]]
    loss = build_weighted_loss(CROSS_ENTROPY, 2, targets_of(data.train), classes=True)
    assert loss.plain(targets_of(data.train)).tolist() == [0, 1]
    assert loss.sample_weights(targets_of(data.train)).tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("rows", "said"),
    [("a,w,y\n1,1,0\n3,-2,1\n", "'w' is -2 at row 2"), ("a,w,y\n1,0,0\n3,0,1\n", "every training sample has weight 0")],
    ids=["negative", "all zero"],
)
def test_weights_that_cannot_be(rows: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataProblem, match=said):
        read(tmp_path, rows, Wanted(True, ("y",), weights="w"))
