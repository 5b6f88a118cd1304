"""Predicted checkpoint bytes against those that the trainer writes."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stoker.facts import DatasetFacts
from stoker.plan import plan
from stoker.spec import JobSpec
from tests.support.plan_cases import Json, arrays, classifier, language, pictures, resolved, table, text

WORDS = ("the quick brown fox jumps over the lazy dog, " * 400).encode()
TABLE, PICTURES, TEXT = table(100, 7), arrays(100, 3, 12, 12), text(len(WORDS), distinct=len(set(WORDS)))
ONCE: Json = {"max_steps": 2, "batch_size": 8}
MLP: Json = {"type": "mlp", "hidden_sizes": [64, 32], "normalization": {"type": "batch"}}
STOPPING = ONCE | {"early_stopping": {}}
LAYERS: Json = {
    "type": "layers",
    "layers": [
        {"type": "conv", "channels": 8},
        {"type": "norm", "kind": "layer"},
        {"type": "residual", "layers": [{"type": "norm", "kind": "batch"}]},
        {"type": "flatten"},
        {"type": "linear", "units": 10},
    ],
}


def normalized(**more: Any) -> Json:
    return {"source": {"type": "csv", "dataset": "set@1"}, "normalization": {"type": "standard", **more}}


def tokens(kind: str, **more: Any) -> Json:
    source = {"type": "text", "dataset": "set@1"}
    return {"source": source, "tokenizer": {"type": kind, **more}, "sequence": {"length": 16}}


CASES: dict[str, tuple[JobSpec, DatasetFacts]] = {
    "mlp": (classifier(MLP, training=ONCE), TABLE),
    "sgd": (classifier({"type": "mlp", "hidden_sizes": []}, training=ONCE, optimizer={"type": "sgd"}), TABLE),
    "momentum": (classifier(MLP, training=STOPPING, data=normalized(), optimizer={"type": "sgd", "momentum": 0.9}), TABLE),
    "amsgrad": (classifier(MLP, training=ONCE, optimizer={"type": "adam", "amsgrad": True}), TABLE),
    "adafactor": (classifier(MLP, training=ONCE, optimizer={"type": "adafactor"}), TABLE),
    "muon": (classifier(MLP, training=ONCE, optimizer={"type": "muon"}), TABLE),
    "ema": (classifier(MLP, training=ONCE | {"ema": {}}, precision={"mode": "bf16_pure"}), TABLE),
    "swa": (classifier(MLP, training=ONCE | {"swa": {"start": {"steps": 1}, "every": {"steps": 1}}}), TABLE),
    "free": (
        pictures(LAYERS, training=ONCE | {"batch_size": 64, "adversarial": {"method": "free"}}),
        PICTURES,
    ),
    "16-bits": (classifier(MLP, training=STOPPING, data=normalized(), precision={"mode": "bf16_pure"}), TABLE),
    "layers": (pictures(LAYERS, training=ONCE), PICTURES),
    "bytes": (language({"num_layers": 12, "hidden_size": 32, "num_heads": 2}, training=ONCE), TEXT),
    "characters": (language({"num_layers": 2, "hidden_size": 32, "num_heads": 2}, training=ONCE, data=tokens("char")), TEXT),
    "gan": (
        pictures(
            {"type": "gan"},
            task={"type": "gan", "discriminator_optimizer": {"type": "sgd", "momentum": 0.9}},
            loss={"type": "hinge"},
            training=ONCE | {"ema": {}},
            regularization={"spectral_norm": {"pattern": "discriminator.*"}},
        ),
        PICTURES,
    ),
    "pairs": (
        language({"num_layers": 4, "hidden_size": 64, "num_heads": 2}, training=ONCE, data=tokens("bpe", vocab_size=280)),
        TEXT,
    ),
}


def write_workspace(home: Path, spec: JobSpec, content: DatasetFacts) -> None:
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    (home / "spec.json").write_text(spec.model_dump_json())
    random = np.random.default_rng(0)
    match content.content.kind:
        case "text":
            (data / "words.txt").write_bytes(WORDS)
        case "arrays":
            np.save(data / "x.npy", random.standard_normal((100, 3, 12, 12), np.float32))
            np.save(data / "y.npy", np.arange(100) % 10)
        case _:
            out = io.StringIO(",".join([*(f"x{i}" for i in range(7)), "y"]) + "\n")
            out.seek(0, io.SEEK_END)
            np.savetxt(out, np.column_stack([random.standard_normal((100, 7)), np.arange(100) % 10]), "%.4f", ",")
            (data / "rows.csv").write_text(out.getvalue().replace(".0000\n", "\n"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """Bytes of each file of each case's first checkpoint; one process trains them all, one after another."""
    root = tmp_path_factory.mktemp("runs")
    for name, (spec, content) in CASES.items():
        write_workspace(root / name, resolved(spec, content), content)
    code = "import os, sys; from pathlib import Path; from worker.trainer.__main__ import main\n"
    code += "sys.stdout.write('\\n' + ' '.join(str(main(Path(home))) for home in sys.argv[1:])); sys.stdout.flush(); os._exit(0)"
    homes = [str(root / name) for name in CASES]
    repository = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code, *homes], cwd=repository, capture_output=True, text=True, timeout=200)
    assert done.stdout.splitlines()[-1].split() == ["0"] * len(CASES), done.stderr
    return {name: _sizes(root / name) for name in CASES}


def _sizes(home: Path) -> dict[str, int]:
    (checkpoint,) = (home / "checkpoints").iterdir()
    return {path.name: path.stat().st_size for path in checkpoint.iterdir()}


@pytest.mark.parametrize("name", CASES)
def test_bytes_on_disk(name: str, written: dict[str, dict[str, int]]) -> None:
    spec, content = CASES[name]
    predicted, real = plan(resolved(spec, content), content).checkpoint, written[name]
    assert predicted.total_bytes == pytest.approx(sum(real.values()), rel=0.01)
    assert predicted.model_bytes == pytest.approx(real["model.safetensors"], rel=0.01, abs=16)
    assert predicted.best_bytes == pytest.approx(real.get("best.safetensors", 0), rel=0.01, abs=16)
    assert predicted.optimizer_bytes == pytest.approx(real["optimizer.safetensors"], rel=0.01, abs=16)


def test_kept_bytes_count_what_retention_leaves() -> None:
    spec = resolved(classifier(MLP, checkpoint={"keep_last": 4, "keep_best": 2}), TABLE)
    predicted = plan(spec, TABLE).checkpoint
    assert predicted.kept == 7
    assert predicted.kept_bytes == 7 * predicted.total_bytes
