"""Texts of a table through the whole trainer, on one and on two processes, against predictions of the saved model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stoker.facts import ColumnFacts, DatasetFacts, TableFacts
from stoker.spec import JobSpec
from stoker.spec.automatic import completed
from tests.support.trainer_runs import Nursery, final_checkpoint, finished, log, series
from worker.trainer.data.split import split_rows
from worker.trainer.predict import load
from worker.trainer.reproducibility import build_seeds

SENTENCES = [(f"the {w} fire is warm", "fire") for w in ("old", "new", "far") * 10]
SENTENCES += [(f"on a {w} hill there is nothing but rain", "rain") for w in ("old", "new", "far") * 10]


def run(nursery: Nursery, home: Path, ranks: int) -> JobSpec:
    columns = (ColumnFacts(name="text", kind="string"), ColumnFacts(name="label", kind="string", distinct=2))
    facts = DatasetFacts(
        name="set", version=1, digest="0" * 64, bytes=1, content=TableFacts(format="csv", rows=len(SENTENCES), columns=columns)
    )
    job = {
        "task": {"type": "classification", "target": "label"},
        "model": {"type": "transformer_encoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2},
        "data": {
            "source": {"type": "csv", "dataset": "set@1", "text": "text"},
            "sequence": {"length": 48},
            "split": {"test": 0.2},
        },
        "optimizer": {"type": "adamw", "lr": 0.01},
        "training": {"max_steps": 25, "batch_size": 12},
        "distributed": {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"},
    }
    spec = completed(JobSpec.model_validate_json(json.dumps(job)), facts)
    (home / "data" / "set@1").mkdir(parents=True)
    (home / "data" / "set@1" / "rows.csv").write_text("\n".join(["text,label", *(",".join(row) for row in SENTENCES)]) + "\n")
    (home / "spec.json").write_text(spec.model_dump_json())
    assert nursery.run(home, ranks) == [0] * ranks, log(home)
    assert finished(home).reason == "completed"
    return spec


def test_texts_are_told_apart_alike_on_one_and_on_two_processes(nursery: Nursery, tmp_path: Path) -> None:
    spec = run(nursery, tmp_path / "one", 1)
    run(nursery, tmp_path / "two", 2)
    one, two = series(tmp_path / "one"), series(tmp_path / "two")
    assert one[25, "validation/loss"] == pytest.approx(two[25, "validation/loss"], rel=1e-3)
    model = load(final_checkpoint(tmp_path / "one"))
    labels = np.array([label for _, label in SENTENCES])
    classes = torch.from_numpy((labels == "rain").astype(np.int64))
    rows = split_rows(spec.data.split, len(labels), classes, build_seeds(spec.reproducibility).split).test.numpy()
    right = (model.predict([SENTENCES[row][0] for row in rows]) == labels[rows]).mean()
    assert right > 0.9
