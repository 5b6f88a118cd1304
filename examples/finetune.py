"""Fine-tuning, transfer and adapters on real data: what telling ten digits apart teaches about odd and even ones.

A small network learns 1,000 of scikit-learn's handwritten digits. Then odd and even are told apart from 60 others in 40 steps:
from nothing, with the whole network as it was and a new head, with all but the head frozen, and with LoRA adapters. It prints
the accuracy of each on the samples that are left, and checks that frozen weights kept their bits and that merged adapters say
what adapters said. Run it in the checkout: python -m examples.finetune
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it has no types

from worker.trainer.adapter import Adapted
from worker.trainer.checkpoint import load_model
from worker.trainer.finetune import finetuned
from worker.trainer.model import build_model

ROOT = Path(__file__).parents[1]
SOURCE = "job_" + "0" * 26
STEPS, FEW = 40, 60
WARM: dict[str, Any] = {"type": "warm", "checkpoint": {"job": SOURCE, "checkpoint": 400}, "reset_head": True}
WAYS: dict[str, dict[str, Any]] = {
    "cold": {},
    "transfer": {"start": WARM},
    "frozen": {"start": WARM, "finetune": {"freeze": ["1.*", "3.*"]}},
    "lora": {
        "start": WARM,
        "finetune": {"adapter": {"type": "lora", "rank": 4, "alpha": 8.0, "targets": ["1", "3"], "train": ["5.*"]}},
    },
}


def job(steps: int, classes: int, **sections: Any) -> dict[str, Any]:
    return {
        "task": {"type": "classification", "num_classes": classes},
        "model": {"type": "mlp", "hidden_sizes": [64, 32]},
        "data": {"source": {"type": "arrays", "dataset": "digits@1"}, "split": {"strategy": "random", "validation": 0.0}},
        "loss": {"type": "cross_entropy"},
        "optimizer": {"type": "adamw", "lr": 0.003},
        "training": {"max_steps": steps, "batch_size": 20, "micro_batch_size": 20, "gradient_accumulation_steps": 1},
        "evaluation": {"metrics": []},
        "checkpoint": {"interval": {"steps": 1000}},
    } | sections


def train(home: Path, spec: dict[str, Any], x: np.ndarray[Any, Any], y: np.ndarray[Any, Any], start: Path | None) -> Path:
    """The last checkpoint of a run of the trainer."""
    data = home / "data" / "digits@1"
    data.mkdir(parents=True)
    np.save(data / "x.npy", x)
    np.save(data / "y.npy", y)
    (home / "spec.json").write_text(json.dumps(spec))
    if start is not None:
        shutil.copytree(start, home / "data" / "start")
    subprocess.run([sys.executable, "-m", "worker.trainer", str(home)], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return home / "checkpoints" / f"step-{spec['training']['max_steps']:08d}"


def apart(path: Path, x: torch.Tensor) -> float:
    """Largest difference between the outputs of adapters and of the weights that they were merged into, beside the largest output."""
    saved = load_model(path)
    model = build_model(saved.spec.model, saved.about.shape, saved.about.outputs, text=False)
    finetuned(saved.spec.initialization.finetune, model)
    model.load_state_dict(load_file(path / "model.safetensors"))
    assert any(isinstance(layer, Adapted) for layer in model.modules())
    with torch.no_grad():
        said, merged = model.eval()(x), saved.model(x)
    return float((said - merged).abs().max() / said.abs().max())


def main() -> dict[str, float]:
    """Accuracy of each way on samples that none of them saw."""
    x, y = load_digits(return_X_y=True)
    x, order = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    few_x, few_y = x[1000 : 1000 + FEW], y[1000 : 1000 + FEW] % 2
    rest_x, rest_y = torch.from_numpy(x[1000 + FEW :]), y[1000 + FEW :] % 2
    accuracy: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = train(Path(folder) / "source", job(400, 10), x[:1000], y[:1000], None)
        before = load_file(source / "model.safetensors")
        for name, begins in WAYS.items():
            path = train(
                Path(folder) / name, job(STEPS, 2, initialization=begins), few_x, few_y, source if "start" in begins else None
            )
            with torch.no_grad():
                guessed = load_model(path).model(rest_x).argmax(-1).numpy()
            accuracy[name] = float((guessed == rest_y).mean())
            print(f"{name:<10} accuracy {accuracy[name]:.3f} after {STEPS} steps on {FEW} samples")
            if name in ("frozen", "lora"):
                after = load_file(path / "model.safetensors")
                same = all(after[k].numpy().tobytes() == before[k].numpy().tobytes() for k in ("1.weight", "1.bias"))
                print(f"{'':<10} frozen weights unchanged to the bit: {same}")
                assert same
            if name == "lora":
                difference = apart(path, rest_x)
                print(f"{'':<10} merged weights and adapters differ by at most {difference:.1e} of the largest output")
                assert difference < 1e-6
    return accuracy


if __name__ == "__main__":
    main()
