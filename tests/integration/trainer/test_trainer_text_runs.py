"""Texts of a table through the whole trainer, on one and on two processes, against predictions of the saved model; and what a
model that builds on another takes over of its tokens.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.events import Notice
from stoker.facts import ColumnFacts, DatasetFacts, TableFacts
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from tests.support.trainer_runs import Nursery, events, final_checkpoint, finished, log, series, workspace
from worker.trainer.data.split import split_rows
from worker.trainer.predict import load
from worker.trainer.reproducibility import build_seeds

SENTENCES = [(f"the {w} fire is warm", "fire") for w in ("old", "new", "far") * 10]
SENTENCES += [(f"on a {w} hill there is nothing but rain", "rain") for w in ("old", "new", "far") * 10]


OTHERS = [(f"near the {w} flame you burn", "fire") for w in ("old", "new", "far") * 10]
OTHERS += [(f"clouds over a {w} lake make you wet", "rain") for w in ("old", "new", "far") * 10]


def run(nursery: Nursery, home: Path, ranks: int, rows: list[tuple[str, str]] = SENTENCES, **sections: Any) -> JobSpec:
    columns = (ColumnFacts(name="text", kind="string"), ColumnFacts(name="label", kind="string", distinct=2))
    facts = DatasetFacts(
        name="set", version=1, digest="0" * 64, bytes=1, content=TableFacts(format="csv", rows=len(rows), columns=columns)
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
    } | sections
    spec = completed(JobSpec.model_validate_json(json.dumps(job)), facts)
    (home / "data" / "set@1").mkdir(parents=True, exist_ok=True)
    (home / "data" / "set@1" / "rows.csv").write_text("\n".join(["text,label", *(",".join(row) for row in rows)]) + "\n")
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


PAIRS: dict[str, Any] = {
    "source": {"type": "csv", "dataset": "set@1", "text": "text"},
    "tokenizer": {"type": "bpe", "vocab_size": 280},
    "sequence": {"length": 32},
    "split": {"test": 0.2},
}


def tokens_of(home: Path) -> str:
    return (final_checkpoint(home) / "tokenizer.json").read_text()


@pytest.fixture(scope="module")
def teacher(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("teacher") / "run"
    run(nursery, home, 1, data=PAIRS)
    return home


def test_a_student_reads_with_the_tokens_of_its_teacher(nursery: Nursery, teacher: Path, tmp_path: Path) -> None:
    """It learns from other texts, of which other byte pairs would be learned."""
    run(nursery, tmp_path / "apart", 1, OTHERS, data=PAIRS)
    assert tokens_of(tmp_path / "apart") != tokens_of(teacher), "the test is to differ"
    lesson = {"teacher": {"job": "job_1", "checkpoint": 25}, "alpha": 0.3}
    training = {"max_steps": 25, "batch_size": 12, "distillation": lesson}
    for name, ranks in (("one", 1), ("two", 2)):
        shutil.copytree(final_checkpoint(teacher), tmp_path / name / "data" / "teacher")
        run(nursery, tmp_path / name, ranks, OTHERS, model={"type": "lstm", "hidden_size": 16}, training=training, data=PAIRS)
        assert tokens_of(tmp_path / name) == tokens_of(teacher)
    one, two = series(tmp_path / "one"), series(tmp_path / "two")
    assert one[25, "train/loss"] == pytest.approx(two[25, "train/loss"], rel=1e-4)
    assert one[25, "test/accuracy"] > 0.9


def test_a_warm_start_reads_with_the_tokens_of_its_weights(nursery: Nursery, teacher: Path, tmp_path: Path) -> None:
    start = {"start": {"type": "warm", "checkpoint": {"job": "job_" + "0" * 26, "checkpoint": 25}}}
    still = {"optimizer": {"type": "sgd", "lr": 1e-12}, "training": {"max_steps": 1, "batch_size": 12}}
    home = tmp_path / "run"
    shutil.copytree(final_checkpoint(teacher), home / "data" / "start")
    run(nursery, home, 1, OTHERS, initialization=start, data=PAIRS, **still)
    assert tokens_of(home) == tokens_of(teacher)
    assert next(e for e in events(home) if isinstance(e, Notice) and e.code == "weights_loaded").data["missing"] == []
    texts = [text for text, _ in SENTENCES]
    then, now = load(final_checkpoint(teacher)), load(final_checkpoint(home))
    np.testing.assert_allclose(now.outputs(texts), then.outputs(texts), rtol=0, atol=1e-5)


def test_embeddings_of_other_tokens_are_refused(nursery: Nursery, tmp_path: Path) -> None:
    job: dict[str, Any] = {
        "task": {"type": "causal_lm"},
        "model": {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 8, "num_heads": 2, "tie_embeddings": False},
        "data": {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "char"}, "sequence": {"length": 8}},
        "training": {"max_steps": 2, "batch_size": 4},
    }

    def prepared(home: Path, text: str, **sections: Any) -> Path:
        workspace(home, job | sections)
        (home / "data" / "set@1" / "text.txt").write_text(text * 40)
        return home

    source = prepared(tmp_path / "source", "abcdefg")
    assert nursery.run(source) == [0], log(source)
    start = {"type": "warm", "checkpoint": {"job": "job_" + "0" * 26, "checkpoint": 2}}
    for more, code in (({}, 2), ({"exclude_keys": ["tokens.*", "head.*"]}, 0)):
        home = prepared(tmp_path / f"run{code}", "tuvwxyz", initialization={"start": start | more})
        shutil.copytree(final_checkpoint(source), home / "data" / "start")
        assert nursery.run(home) == [code], log(home)
        if code:
            assert "tokens.weight of checkpoint 2 of job_" in (finished(home).message or "")
            assert "is of other tokens" in (finished(home).message or "")
