"""Recurrent models through the whole trainer: windows, streams, ranks, resume, and what is planned of them."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stoker.document.load import load_file
from stoker.plan import plan
from stoker.spec import JobSpec
from tests.support.plan_cases import resolved, text
from tests.support.same_runs import interrupted
from tests.support.trainer_runs import Nursery, final_checkpoint, finished, log, same_bits, series
from worker.trainer.predict import load

WORDS = "".join(random.Random(0).choices(["the cat sat. ", "a dog ran, ", "all was well; ", "nobody knew why "], k=330))
EXAMPLE: dict[str, Any] = load_file(Path(__file__).parents[3] / "examples/features/char_lstm_tbptt.yaml").value
CONTENT = text(len(WORDS), distinct=len(set(WORDS)))


def home_of(home: Path, ranks: int = 1, **sections: Any) -> Path:
    document: dict[str, Any] = (
        EXAMPLE | {"logging": {"interval": {"steps": 3}}, "checkpoint": {"interval": {"steps": 7}}} | sections
    )
    document = document | {"data": document["data"] | {"source": {"type": "text", "dataset": "set@1"}}}
    if ranks > 1:
        document["distributed"] = {"strategy": "ddp", "processes_per_node": ranks}
    spec = resolved(JobSpec.model_validate_json(json.dumps(document)), CONTENT)
    (home / "data" / "set@1").mkdir(parents=True)
    (home / "data" / "set@1" / "words.txt").write_text(WORDS)
    (home / "spec.json").write_text(spec.model_dump_json())
    return home


@pytest.mark.proves("TRAIN-08")
@pytest.mark.parametrize("ranks", [1, 2])
def test_streams_go_on_after_a_kill_as_if_nothing_had_been(ranks: int, nursery: Nursery, tmp_path: Path) -> None:
    few = {"training": EXAMPLE["training"] | {"max_steps": 17}}
    whole, broken = home_of(tmp_path / "whole", ranks, **few), home_of(tmp_path / "broken", ranks, **few)
    assert nursery.run(whole, ranks) == [0] * ranks, log(whole)
    interrupted(nursery, broken, ranks, (9, signal.SIGKILL))
    assert series(broken) == series(whole)
    for name in ("model.safetensors", "optimizer.safetensors", "parts.safetensors"):
        assert same_bits(final_checkpoint(broken) / name, final_checkpoint(whole) / name)


@pytest.mark.proves("TRAIN-08")
def test_two_ranks_learn_what_one_does(nursery: Nursery, tmp_path: Path) -> None:
    model = {"model": EXAMPLE["model"] | {"dropout": 0.0}}
    one, two = home_of(tmp_path / "one", 1, **model), home_of(tmp_path / "two", 2, **model)
    assert nursery.run(one) == [0], log(one)
    assert nursery.run(two, 2) == [0, 0], log(two)
    alone, together = series(one), series(two)
    assert alone.keys() == together.keys()
    assert alone[(40, "train/loss")] == pytest.approx(together[(40, "train/loss")], rel=1e-4)
    first = min(step for step, key in alone if key == "train/loss")
    assert alone[(40, "train/loss")] < 0.8 * alone[(first, "train/loss")]


def test_a_checkpoint_writes_and_is_as_large_as_planned(nursery: Nursery, tmp_path: Path) -> None:
    home = home_of(tmp_path / "run")
    assert nursery.run(home) == [0], log(home)
    assert finished(home).metrics["validation/perplexity"] < len(set(WORDS)) / 2
    path = final_checkpoint(home)
    spec = JobSpec.model_validate_json((home / "spec.json").read_bytes())
    predicted = plan(spec, CONTENT).checkpoint.total_bytes
    assert predicted == pytest.approx(sum(file.stat().st_size for file in path.iterdir()), rel=0.01)
    model = load(path)
    said = model.generate("the cat", tokens=20, temperature=0.0)
    ids = list(model.about.codec.encode("the cat"))  # type: ignore[union-attr]  # a text model has one
    state, step = None, torch.tensor([ids])
    with torch.no_grad():
        for _ in range(20):  # the memory carried on by hand gives the same text while it fits one window
            told, state = model.model.layers(model.model.tokens(step), state)  # type: ignore[operator,union-attr]  # a Recurrent
            step = model.model.head(told[:, -1:]).argmax(-1)  # type: ignore[operator]  # a Linear
            ids.append(int(step))
    assert said == model.about.codec.decode(ids)  # type: ignore[union-attr]


def test_series_of_numbers_are_classified(nursery: Nursery, tmp_path: Path) -> None:
    """Which of two tones a noisy curve holds; the last twelve of sixteen steps say enough."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 2, 200)
    curves = np.sin(np.arange(16) * np.where(classes, 1.7, 0.6)[:, None] + draw.uniform(0, 6, (200, 1))) + draw.normal(
        0, 0.1, (200, 16)
    )
    home = tmp_path / "run"
    (home / "data" / "set@1").mkdir(parents=True)
    np.save(home / "data" / "set@1" / "x.npy", np.stack((curves, curves**2), -1).astype(np.float32))
    np.save(home / "data" / "set@1" / "y.npy", classes)
    document = {
        "task": {"type": "classification"},
        "model": {"type": "gru", "hidden_size": 16},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2}},
        "optimizer": {"type": "adamw", "lr": 0.02},
        "training": {"epochs": 12, "batch_size": 20, "tbptt": {"steps": 12}},
    }
    (home / "spec.json").write_text(json.dumps(document))
    assert nursery.run(home) == [0], log(home)
    assert finished(home).metrics["validation/accuracy"] >= 0.95
