"""The trainer as others use it: by hand, from a warm interpreter, and a checkpoint after it is gone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.events import Phase, Started
from tests.support.late import Late
from tests.support.trainer_runs import Nursery, blobs, events, final_checkpoint, finished, log, same_bits, workspace
from worker.trainer.predict import load

datasets = Late("sklearn.datasets")

DIGITS: dict[str, Any] = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [128, 64], "dropout": 0.2},
    "data": {
        "source": {"type": "arrays", "dataset": "set@1"},
        "split": {"validation": 0.15, "test": 0.15},
        "normalization": {"type": "minmax", "per_channel": False},
    },
    "optimizer": {"type": "adamw", "lr": 0.003},
    "schedule": {"type": "cosine", "warmup_ratio": 0.05},
    "training": {"epochs": 30, "batch_size": 64, "gradient_clipping": {"type": "norm"}},
}
TEXT: dict[str, Any] = {
    "task": {"type": "causal_lm"},
    "model": {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 32, "num_heads": 2, "position": {"type": "rope"}},
    "data": {"source": {"type": "text", "dataset": "set@1"}, "tokenizer": {"type": "char"}, "sequence": {"length": 16}},
    "optimizer": {"type": "adamw", "lr": 0.01},
    "training": {"max_tokens": 40_000, "batch_size": 16},
    "evaluation": {"metrics": ["perplexity", "bits_per_byte"]},
}


def test_digits_are_told_apart_and_the_checkpoint_names_them(nursery: Nursery, tmp_path: Path) -> None:
    x, y = datasets.load_digits(return_X_y=True)
    home = workspace(tmp_path / "run", DIGITS, x=x.astype(np.float32), y=y)
    assert nursery.run(home) == [0], log(home)
    assert finished(home).metrics["test/accuracy"] >= 0.97
    model = load(final_checkpoint(home))
    assert (model.predict(x) == y).mean() >= 0.97
    np.testing.assert_allclose(model.probabilities(x).sum(1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        model.predict(x[:, :60])
    with pytest.raises(ValueError, match="text"):
        model.generate("a")


def test_a_language_model_learns_and_writes(nursery: Nursery, tmp_path: Path) -> None:
    home = workspace(tmp_path / "run", TEXT)
    (home / "data" / "set@1" / "text.txt").write_text("the cat sat on the mat. a dog ran to the cat.\n" * 400)
    assert nursery.run(home) == [0], log(home)
    got, said = finished(home).metrics, [e for e in events(home) if isinstance(e, Phase)]
    assert got["validation/perplexity"] == pytest.approx(np.exp(got["validation/loss"]), rel=1e-6)
    assert got["validation/bits_per_byte"] == pytest.approx(got["validation/loss"] / np.log(2), rel=1e-6), "one byte a character"
    assert got["validation/perplexity"] < 2, "a text of two sentences is nearly certain"
    assert [p.name for p in said][:3] == ["loading_data", "building_model", "training"]
    model = load(final_checkpoint(home))
    text = model.generate("the cat", tokens=40, temperature=0)
    assert "the mat." in text or "the cat." in text
    assert model.generate("a", tokens=30, temperature=1.0, seed=5) == model.generate("a", tokens=30, temperature=1.0, seed=5)
    with pytest.raises(ValueError, match="empty"):
        model.generate("")


def test_by_hand_it_gives_the_bits_of_a_forked_run(nursery: Nursery, tmp_path: Path) -> None:
    spec = DIGITS | {"training": {"epochs": 2, "batch_size": 32}}
    forked, fresh = (workspace(tmp_path / name, spec, **blobs()) for name in ("forked", "fresh"))
    assert nursery.run(forked) == [0], log(forked)
    done = subprocess.run([sys.executable, "-m", "worker.trainer", str(fresh)], check=False)
    assert done.returncode == 0
    assert same_bits(final_checkpoint(forked) / "model.safetensors", final_checkpoint(fresh) / "model.safetensors")
    assert [e.total_steps for e in events(fresh) if isinstance(e, Started)] == [10]


def test_a_warm_interpreter_has_one_thread_and_so_may_fork() -> None:
    program = """
import os, sys
from worker.trainer import warm_imports
warm_imports()
print(len(os.listdir("/proc/self/task")), sorted({"matplotlib", "scipy", "torchmetrics", "transformers"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "1 ['torchmetrics']", "and what only other users of torchmetrics need is not imported"
