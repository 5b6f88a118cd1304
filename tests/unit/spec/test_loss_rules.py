"""Which loss and which metric a task takes, and how wide its head is: all of them, against a table written down here."""

from typing import Any

import pytest
import torch
from torch import nn

from stoker.document.resolve import resolve
from stoker.errors import SpecError
from stoker.facts import DatasetFacts, TableFacts
from stoker.plan.known import known_of
from tests.support.spec_cases import TARGET, TEXT, TEXT_JOB, Json, changed, column, facts
from worker.trainer.model import build_model

BITS = column("bit", "integer", distinct=2, counts={"0": 75, "1": 75})
TABLE = facts(TableFacts(format="csv", rows=150, columns=(column("a"), column("b"), TARGET, BITS), delimiter=","))
ROW_JOB: Json = {
    "model": {"type": "mlp", "hidden_sizes": [4]},
    "data": {"source": {"type": "csv", "dataset": "d", "columns": ["a"]}},
    "training": {"epochs": 5},
}
JOBS: dict[str, tuple[Json, DatasetFacts]] = {
    "binary": (ROW_JOB | {"task": {"type": "classification", "target": "bit"}}, TABLE),
    "multi-class": (ROW_JOB | {"task": {"type": "classification", "target": "t"}}, TABLE),
    "one label": (ROW_JOB | {"task": {"type": "multilabel", "target": "bit"}}, TABLE),
    "labels": (ROW_JOB | {"task": {"type": "multilabel", "target": ["bit", "b"]}}, TABLE),
    "regression": (ROW_JOB | {"task": {"type": "regression", "target": ["b", "t"]}}, TABLE),
    "causal_lm": (TEXT_JOB, TEXT),
}
OF_CLASSES, OF_LABELS = {"cross_entropy", "nll", "focal"}, {"bce", "focal"}
OF_NUMBERS = {"mse", "mae", "huber", "gaussian_nll"}
RIGHT = {"binary": OF_CLASSES, "multi-class": OF_CLASSES, "one label": OF_LABELS, "labels": OF_LABELS, "regression": OF_NUMBERS}
RIGHT["causal_lm"] = OF_CLASSES
SCORES = {"accuracy", "precision", "recall", "f1", "auroc"}
MEASURED = {"binary": SCORES, "multi-class": SCORES, "one label": SCORES, "labels": SCORES, "regression": {"mae", "rmse", "r2"}}
MEASURED["causal_lm"] = {"perplexity", "bits_per_byte"}


def every(table: dict[str, set[str]]) -> list[Any]:
    """Cases of pytest: kind, name, and whether they go together."""
    names = sorted(set().union(*table.values()))
    return [pytest.param(kind, name, name in right, id=f"{kind}-{name}") for kind, right in table.items() for name in names]


@pytest.mark.proves("ARCH-27")
@pytest.mark.parametrize(("kind", "loss", "fits"), every(RIGHT))
def test_a_loss_for_another_task_is_refused_at_submit(kind: str, loss: str, fits: bool) -> None:
    job, content = JOBS[kind]
    asked = job | {"loss": {"type": loss}}
    if fits:
        assert resolve(asked, content).spec.loss.type == loss  # type: ignore[union-attr]  # resolved
        return
    with pytest.raises(SpecError) as refused:
        resolve(asked, content)
    (finding,) = [each for each in refused.value.findings if each.code == "loss-fits-task"]
    assert (finding.pointer, set(finding.allowed or ())) == ("/loss/type", RIGHT[kind])


@pytest.mark.proves("ARCH-27")
@pytest.mark.parametrize(("kind", "metric", "fits"), every(MEASURED))
def test_a_metric_for_another_task_is_refused_at_submit(kind: str, metric: str, fits: bool) -> None:
    job, content = JOBS[kind]
    asked = job | {"evaluation": {"metrics": [metric]}}
    if fits:
        assert [each.type for each in resolve(asked, content).spec.evaluation.metrics or ()] == [metric]
        return
    with pytest.raises(SpecError) as refused:
        resolve(asked, content)
    assert [(each.code, each.pointer) for each in refused.value.findings] == [("metric-fits-task", "/evaluation/metrics/0")]


@pytest.mark.proves("ARCH-27")
@pytest.mark.parametrize(
    ("kind", "loss", "width"),
    [
        ("binary", "cross_entropy", 2),
        ("multi-class", "focal", 3),
        ("one label", "bce", 1),
        ("labels", "bce", 2),
        ("regression", "huber", 2),
        ("regression", "gaussian_nll", 4),
    ],
)
def test_the_head_is_as_wide_as_there_are_classes_labels_or_numbers(kind: str, loss: str, width: int) -> None:
    job, content = JOBS[kind]
    spec = resolve(changed(job, {"loss": {"type": loss}}), content).spec
    known = known_of(spec, content)
    model = build_model(spec.model, known.shape, known.outputs, text=False)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert model(torch.zeros(3, 1)).shape == (3, width)
    assert last.out_features == width


def test_weights_of_samples_are_no_feature_and_say_how_they_are_averaged() -> None:
    job = changed(JOBS["multi-class"][0], {"data": {"source": {"type": "csv", "dataset": "d"}, "sample_weight_column": "bit"}})
    spec = resolve(job, TABLE).spec
    assert spec.data.source.columns == ("a", "b")  # type: ignore[union-attr]  # a table
    assert spec.loss is not None
    assert spec.loss.sample_weight_normalization == "weights"


def test_logits_in_parts_are_judged_in_parts() -> None:
    job = changed(
        TEXT_JOB, {"loss": {"type": "cross_entropy", "chunk_tokens": 64}, "training": {"max_steps": 5, "batch_size": 32}}
    )
    assert resolve(job, TEXT).spec.evaluation.batch_size == 4
