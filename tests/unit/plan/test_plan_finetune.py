"""What fine-tuning needs, against models that are really tuned."""

import json
from typing import Any

import pytest
import torch

from stoker.errors import SpecError
from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts
from stoker.plan import plan
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from stoker.spec.regularization import Regularization
from worker.trainer.initialization.finetune import finetuned
from worker.trainer.model import build_model

FACTS = DatasetFacts(
    name="set",
    version=1,
    digest="0" * 64,
    bytes=1,
    content=ArrayFacts(
        files={
            "x.npy": ArrayFile(dtype="<f4", shape=(203, 12)),
            "y.npy": ArrayFile(dtype="<i8", shape=(203,), distinct=4, counts=dict.fromkeys("0123", 50)),
        }
    ),
)


def job(finetune: dict[str, Any] | None) -> JobSpec:
    whole = {
        "task": {"type": "classification", "num_classes": 4},
        "model": {"type": "mlp", "hidden_sizes": [16, 8], "normalization": {"type": "batch"}},
        "initialization": {"finetune": finetune},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}},
        "optimizer": {"type": "adamw"},
        "training": {"max_steps": 6, "batch_size": 32},
    }
    return completed(JobSpec.model_validate_json(json.dumps(whole)), FACTS)


@pytest.mark.proves("INIT-09")
@pytest.mark.parametrize(
    "finetune",
    [
        None,
        {"freeze": ["0.*", "*.bias"]},
        {"unfreeze_at": [{"pattern": "0.*", "at": {"steps": 2}}], "layer_lr_decay": 0.5},
        {"adapter": {"type": "lora", "rank": 3, "targets": ["*"], "train": ["6.*"]}},
        {"adapter": {"type": "lora", "rank": 2, "targets": ["3"]}},
    ],
)
def test_counts_and_bytes_are_those_of_the_tuned_model(finetune: dict[str, Any] | None) -> None:
    spec = job(finetune)
    with torch.device("meta"):
        model = build_model(spec.model, (12,), 4, text=False)
    finetuned(spec.initialization.finetune, model)
    learned = [p for p in model.parameters() if p.requires_grad]
    predicted = plan(spec, FACTS)
    assert predicted.parameters.total == sum(p.numel() for p in model.parameters())
    assert predicted.parameters.trainable == sum(p.numel() for p in learned)
    assert predicted.memory.weights_bytes == 4 * predicted.parameters.total
    assert predicted.memory.gradients_bytes == 4 * sum(p.numel() for p in learned)
    assert predicted.memory.optimizer_bytes == 8 * sum(p.numel() for p in learned) + 4 * len(learned)


@pytest.mark.parametrize(
    ("finetune", "pointer"),
    [
        ({"freeze": ["0.*", "head*"]}, "freeze/1"),
        ({"unfreeze_at": [{"pattern": "x", "at": {"steps": 2}}]}, "unfreeze_at/0/pattern"),
        ({"adapter": {"type": "lora", "targets": ["1"]}}, "adapter/targets/0"),
        ({"freeze": ["*"]}, "freeze"),
    ],
)
def test_a_pattern_that_fits_nothing_is_named(finetune: dict[str, Any], pointer: str) -> None:
    with pytest.raises(SpecError) as refused:
        plan(job(finetune), FACTS)
    assert [found.pointer for found in refused.value.findings] == [f"/initialization/finetune/{pointer}"]


@pytest.mark.parametrize(
    ("finetune", "penalties", "pointer"),
    [
        ({"freeze": ["*.weight"]}, {"l2": {"strength": 0.1}}, "l2"),
        ({"freeze": ["0.*"]}, {"l1": {"strength": 0.1, "pattern": "0.*"}}, "l1/pattern"),
        (None, {"group_lasso": {"strength": 0.1, "pattern": "*.bias"}}, "group_lasso/pattern"),
        (None, {"spectral_norm": {"pattern": "*.bias"}}, "spectral_norm/pattern"),
    ],
)
def test_a_penalty_on_nothing_that_learns_is_refused(
    finetune: dict[str, Any] | None, penalties: dict[str, Any], pointer: str
) -> None:
    spec = job(finetune).model_copy(update={"regularization": Regularization.model_validate(penalties)})
    with pytest.raises(SpecError) as refused:
        plan(spec, FACTS)
    assert [found.pointer for found in refused.value.findings] == [f"/regularization/{pointer}"]


def test_a_bound_on_frozen_weights_and_a_penalty_on_those_that_learn_are_planned() -> None:
    asked = Regularization.model_validate({"l2": {"strength": 0.1, "pattern": "4.*"}, "spectral_norm": {"pattern": "0.*"}})
    plan(job({"freeze": ["0.*"]}).model_copy(update={"regularization": asked}), FACTS)
