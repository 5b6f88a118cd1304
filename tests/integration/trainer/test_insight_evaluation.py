"""Judgements of a run against scikit-learn and NumPy on its own checkpoint, however samples are divided."""

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from stoker.spec.evaluation import Evaluation
from tests.support.late import Late
from tests.support.trainer_runs import Nursery, final_checkpoint, finished, log, same_bits, series, tensors, workspace
from worker.trainer.evaluation import build_examiner
from worker.trainer.loss import SummedSquares
from worker.trainer.predict import load
from worker.trainer.runtime.rhythm import EverySteps
from worker.trainer.runtime.world import World

reference = Late("sklearn.metrics")

AVERAGES: tuple[Literal["macro", "micro", "weighted"], ...] = ("macro", "micro", "weighted")
SCORES = ("precision", "recall", "f1")
TEST = 41
SPEC: dict[str, Any] = {
    "task": {"type": "classification", "num_classes": 5},
    "model": {"type": "mlp", "hidden_sizes": [16], "normalization": {"type": "batch"}, "dropout": 0.4},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.0, "test": TEST / 200, "strategy": "contiguous"},
    },
    "training": {"max_steps": 12, "batch_size": 16},
    "optimizer": {"type": "sgd", "lr": 0.05},
    "evaluation": {
        "metrics": [
            {"type": "accuracy"},
            {"type": "accuracy", "top_k": 2},
            "auroc",
            *({"type": kind, "average": average} for kind in SCORES for average in AVERAGES),
        ],
        "batch_size": 7,
    },
    "checkpoint": {"keep_best": 0},
}
TWO = {"distributed": {"strategy": "ddp", "processes_per_node": 2}}


def data() -> dict[str, np.ndarray[Any, Any]]:
    """Five classes of unequal size; the last one is not among the last rows, which are the test split."""
    draw = np.random.default_rng(11)
    y = draw.choice(5, 200, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    y[-TEST:][y[-TEST:] == 4] = 0
    return {"x": (draw.normal(size=(5, 6))[y] + draw.normal(size=(200, 6))).astype(np.float32), "y": y}


@pytest.fixture(scope="module")
def judged(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """One process, and two that have 20 and 21 samples to judge, in portions of 7."""
    homes = {}
    for ranks, more in ((1, {}), (2, TWO)):
        homes[ranks] = workspace(tmp_path_factory.mktemp("judged") / "run", SPEC | more, **data())
        assert set(nursery.run(homes[ranks], ranks)) == {0}, log(homes[ranks])
    return homes


@pytest.mark.proves("EVAL-03", cases=["precision*"])
@pytest.mark.proves("EVAL-04", cases=["recall*"])
@pytest.mark.proves("EVAL-05", cases=["f1-macro-1", "f1-macro-2", "f1-micro-1", "f1-micro-2", "f1-weighted-1", "f1-weighted-2"])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("kind", SCORES)
def test_scores_are_those_of_scikit_learn(judged: dict[int, Path], kind: str, average: str, ranks: int) -> None:
    model, truth = load(final_checkpoint(judged[ranks])), data()["y"][-TEST:]
    said = model.predict(data()["x"][-TEST:])
    present = sorted(set(truth) | set(int(c) for c in said))
    expected = getattr(reference, f"{kind}_score")(truth, said, average=average, labels=present, zero_division=0)
    key = kind if average == "macro" else f"{kind}_{average}"
    assert finished(judged[ranks]).metrics[f"test/{key}"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.proves("EVAL-01", "EVAL-02", "EVAL-06")
@pytest.mark.parametrize("ranks", [1, 2])
def test_accuracy_and_area_are_those_of_scikit_learn(judged: dict[int, Path], ranks: int) -> None:
    model, truth, got = load(final_checkpoint(judged[ranks])), data()["y"][-TEST:], finished(judged[ranks]).metrics
    shares = model.probabilities(data()["x"][-TEST:]).astype(np.float64)
    assert got["test/accuracy"] == pytest.approx(reference.accuracy_score(truth, shares.argmax(1)), abs=1e-7)
    top = reference.top_k_accuracy_score(truth, shares, k=2, labels=range(5))
    assert got["test/accuracy_top2"] == pytest.approx(top, abs=1e-7)
    areas = [reference.roc_auc_score(truth == c, shares[:, c]) for c in range(5) if (truth == c).any()]
    assert len(areas) == 4, "the class without samples has no area, and is not counted as one of 0"
    assert got["test/auroc"] == pytest.approx(np.mean(areas), abs=2e-7)


@pytest.mark.proves("EVAL-07")
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_loss_is_the_mean_of_one_pass_over_all_samples(judged: dict[int, Path], ranks: int) -> None:
    """Portions of 7 divide neither 41 nor 20 nor 21."""
    model, truth = load(final_checkpoint(judged[ranks])), data()["y"][-TEST:]
    logits = model.outputs(data()["x"][-TEST:]).astype(np.float64)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(TEST), truth]
    assert finished(judged[ranks]).metrics["test/loss"] == pytest.approx(each.mean(), rel=1e-6)


@pytest.mark.proves("EVAL-06")
def test_an_area_over_one_class_is_undefined_not_zero(nursery: Nursery, tmp_path: Path) -> None:
    values = data()
    values["y"][-TEST:] = 2
    home = workspace(tmp_path / "run", SPEC | {"evaluation": {"metrics": ["auroc"]}}, **values)
    assert nursery.run(home) == [0], log(home)
    assert math.isnan(finished(home).metrics["test/auroc"])
    assert math.isnan(series(home)[12, "test/auroc"])


@pytest.mark.proves("EVAL-08")
def test_judging_leaves_no_trace(nursery: Nursery, tmp_path: Path) -> None:
    """Evaluated after each step or once at the end: the same weights, batch statistics and noise, to the bit."""
    split = {"split": {"validation": 0.3, "test": 0.0, "strategy": "contiguous"}}
    spec = SPEC | {"data": SPEC["data"] | split}
    homes = []
    for steps in (1, 1000):
        evaluation = {"interval": {"steps": steps}, "batch_size": 7, "metrics": ["accuracy", "f1"]}
        homes.append(workspace(tmp_path / str(steps), spec | {"evaluation": evaluation}, **data()))
        assert nursery.run(homes[-1]) == [0], log(homes[-1])
    always, once = homes
    assert sum(key == "validation/loss" for _, key in series(always)) == 12
    assert sum(key == "validation/loss" for _, key in series(once)) == 1
    for name in ("model.safetensors", "optimizer.safetensors", "ranks.safetensors"):
        assert same_bits(final_checkpoint(always) / name, final_checkpoint(once) / name), name
    assert any("running_mean" in name for name in tensors(final_checkpoint(always) / "model.safetensors"))
    model = load(final_checkpoint(always))
    logits = model.outputs(data()["x"][-60:]).astype(np.float64)
    each = np.log(np.exp(logits).sum(1)) - logits[np.arange(60), data()["y"][-60:]]
    assert series(always)[12, "validation/loss"] == pytest.approx(each.mean(), rel=1e-6), "by running statistics, without dropout"


class Rows:
    """A split in memory."""

    def __init__(self, count: int) -> None:
        self._values = torch.arange(count, dtype=torch.float32).reshape(-1, 1)

    def __len__(self) -> int:
        return len(self._values)

    def slice(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return self._values[start:stop], self._values[start:stop] + 1


@pytest.mark.proves("EVAL-07")
@pytest.mark.proves("EVAL-08", cases=["3"])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_no_gradient_is_recorded_and_every_sample_seen_once(batch_size: int) -> None:
    model, seen = torch.nn.Linear(1, 1), []

    def says(inputs: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        assert not model.training
        seen.extend(inputs.flatten().tolist())
        out: torch.Tensor = model(inputs)
        assert not out.requires_grad
        return inputs

    examiner = build_examiner(
        Evaluation(batch_size=batch_size, batches=None),
        (),
        criterion=SummedSquares(),
        text=None,
        outputs=1,
        micro_size=4,
        pace=lambda interval: EverySteps(1),
        world=World(0, 1, torch.device("cpu"), 0, 1),
        autocast=torch.no_grad,
    )
    assert examiner.judge(model, says, Rows(10))["loss"] == 1.0, "each target is one above what is said"
    assert seen == [float(i) for i in range(10)]
    assert model.training
