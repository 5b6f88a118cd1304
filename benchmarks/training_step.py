"""What does Stoker's training loop cost over a bare PyTorch loop that does the same work?

Both loops train the same model from the same weights with fused AdamW, clip by norm, and report the mean loss, the learning
rate and the gradient norm every 10 steps as a line of JSON. They run in one process, chunk by chunk in alternation, and the
figure is the median of the ratios of neighbouring chunks: anything that slows the machine for longer than a chunk hits both.
The bare loop gets its batches ready made. A second figure compares Stoker's data path with a DataLoader that fetches items.

    python benchmarks/training_step.py [--chunks 60]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parents[1]))

from stoker.spec import JobSpec
from worker.trainer import loop
from worker.trainer.assembly import Run, assemble
from worker.trainer.debug import patience
from worker.trainer.runtime.control import StopSignal
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import join_world

COMMON: dict[str, Any] = {
    "optimizer": {"type": "adamw", "lr": 1e-3},
    "logging": {"interval": {"steps": 10}},
    "evaluation": {"interval": {"steps": 10**9}},
    "checkpoint": {"interval": {"steps": 10**9}},
}
MLP = COMMON | {
    "task": {"type": "classification", "num_classes": 10},
    "model": {"type": "mlp", "hidden_sizes": [128]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.0, "strategy": "random"}},
    "training": {"max_steps": 10**9, "batch_size": 256, "gradient_clipping": {"type": "norm"}},
}
GPT = COMMON | {
    "task": {"type": "causal_lm"},
    "model": {"type": "transformer_decoder", "num_layers": 2, "hidden_size": 64, "num_heads": 4},
    "data": {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": 64}, "split": {"validation": 0.0}},
    "training": {"max_steps": 10**9, "batch_size": 16, "gradient_clipping": {"type": "norm"}},
}


def workspace(spec: dict[str, Any], rows: int) -> Path:
    """A directory to run in; 64 features of noise, or noise as text."""
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    draw = np.random.default_rng(0)
    if spec["data"]["source"]["type"] == "text":
        (data / "text.txt").write_bytes(bytes(draw.integers(32, 127, rows * 64, dtype=np.uint8)))
    else:
        np.save(data / "x.npy", draw.normal(size=(rows, 64)).astype(np.float32))
        np.save(data / "y.npy", draw.integers(0, 10, rows))
    (home / "spec.json").write_text(json.dumps(spec))
    return home


def stoker_run(spec: dict[str, Any], rows: int) -> Run:
    home = workspace(spec, rows)
    job = JobSpec.model_validate_json((home / "spec.json").read_bytes())
    world = join_world("cpu", 1, patience(job.debug))
    return assemble(job, home, world, Journal(home, 0), StopSignal(), learned=None, taught=None)


def stoker_chunk(run: Run, steps: int) -> None:
    """`steps` turns of the trainer's own loop, its log going to a file as an agent has it."""
    run.ended, run.clock.total = None, run.clock.step + steps
    with (run.home / "log").open("a") as log, redirect_stdout(log):
        loop.repeat(run)


class BareLoop:
    """The loop that somebody who knows PyTorch writes by hand."""

    def __init__(self, run: Run, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], model: nn.Module) -> None:
        self.model, self.batches = model, batches
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
        self.file = (run.home / "bare.jsonl").open("a", buffering=1)
        self.criterion, self.step, self.losses = nn.CrossEntropyLoss(), 0, torch.zeros(())

    def chunk(self, steps: int) -> None:
        for _ in range(steps):
            inputs, targets = next(self.batches)
            self.optimizer.zero_grad()
            outputs = self.model(inputs)
            loss = self.criterion(outputs.flatten(0, -2), targets.flatten())
            loss.backward()
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.losses += loss.detach()
            self.step += 1
            if self.step % 10 == 0:
                values = {"loss": self.losses.item() / 10, "lr": self.optimizer.param_groups[0]["lr"], "norm": norm.item()}
                self.file.write(json.dumps({"step": self.step, "t": time.time(), **values}) + "\n")
                self.losses.zero_()


def forever(make: Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from make()


def ready_batches(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch's batches, made before the clock starts and given out in turn."""
    made = [
        tuple(part.contiguous().clone() for part in run.data.train.slice(at, at + run.feed.batch_size, torch.device("cpu")))
        for at in range(0, len(run.data.train), run.feed.batch_size)
    ]
    return forever(lambda: iter(made))  # type: ignore[arg-type]  # pairs of tensors


def per_item(run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    samples = run.data.train.slice(0, len(run.data.train), torch.device("cpu"))
    loader = DataLoader(TensorDataset(*samples), batch_size=run.feed.batch_size, shuffle=True)
    return forever(lambda: iter(loader))


def twin(run: Run) -> nn.Module:
    """The same architecture with the same weights."""
    return deepcopy(run.model)


def paired(run: Run, bare: BareLoop, chunks: int, steps: int) -> dict[str, float]:
    """Median and quartiles of stoker / bare over neighbouring chunks, and the seconds per bare step."""
    ratios, seconds = [], []
    stoker_chunk(run, steps)
    bare.chunk(steps)
    for turn in range(chunks):
        pair = {}
        for who in ("stoker", "bare") if turn % 2 else ("bare", "stoker"):
            start = time.perf_counter()
            stoker_chunk(run, steps) if who == "stoker" else bare.chunk(steps)
            pair[who] = time.perf_counter() - start
        ratios.append(pair["stoker"] / pair["bare"])
        seconds.append(pair["bare"] / steps)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"ratio": middle, "quartile_low": low, "quartile_high": high, "bare_step_ms": 1e3 * statistics.median(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--chunks", type=int, default=60)
    chunks = parser.parse_args().chunks
    cases = [("mlp, ready batches", MLP, 65_536, ready_batches, 100), ("gpt, ready batches", GPT, 4_096, ready_batches, 10)]
    cases.append(("mlp, per-item DataLoader", MLP, 65_536, per_item, 100))
    for name, spec, rows, batches, steps in cases:
        run = stoker_run(spec, rows)
        figures = paired(run, BareLoop(run, batches(run), twin(run)), chunks, steps)
        print(json.dumps({"case": name, **{key: round(value, 4) for key, value in figures.items()}}))


if __name__ == "__main__":
    main()
