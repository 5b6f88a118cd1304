"""How long does a run stand still for a checkpoint of 500 MB?

A run as the trainer assembles it (an MLP with AdamW: weights and two moments), saved in turn by Stoker from a fork, from a copy and
without a background, by torch.save, and by PyTorch's distributed checkpoint (DCP), waiting and async. The figure is how long the run
stands still: the time from asking for the save to the next step, and what that step waits until its weights may change. Every file is
complete on disk before the next one is asked for. Each has a process of its own, for a fork costs what its process holds, and nobody
holds the buffers of five ways to save; they take turns, round by round; medians. A second figure is what the save costs in all until
the next step is done: the stall, and what the step takes longer than the one before the save, for it shares memory and processors
with whoever writes.

    python benchmarks/checkpoint_stall.py [--rounds 5] [--megabytes 500]
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp

sys.path.insert(0, str(Path(__file__).parents[1]))

from stoker.spec import JobSpec
from worker.trainer import checkpoint, loop
from worker.trainer.assembly import Run, assemble
from worker.trainer.debug import patience
from worker.trainer.runtime.control import StopSignal
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import join_world
from worker.trainer.staging import Staging

FEATURES = 256


def spec(megabytes: int) -> dict[str, Any]:
    """Square layers, as many as make weights and moments of that size."""
    width, depth = 2048, max(1, round(megabytes * 1e6 / 12 / 2048**2))
    return {
        "task": {"type": "classification", "num_classes": 10},
        "model": {"type": "mlp", "hidden_sizes": [width] * (depth + 1)},
        "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.0, "strategy": "random"}},
        "training": {"max_steps": 10**9, "batch_size": 64},
        "optimizer": {"type": "adamw", "lr": 1e-3},
        "logging": {"interval": {"steps": 10**9}, "performance": False},
        "evaluation": {"interval": {"steps": 10**9}},
        "checkpoint": {"interval": {"steps": 10**9}},
    }


def assembled(home: Path, megabytes: int) -> Run:
    data = home / "data" / "set@1"
    data.mkdir(parents=True)
    random = np.random.default_rng(0)
    np.save(data / "x.npy", random.standard_normal((1024, FEATURES), np.float32))
    np.save(data / "y.npy", np.arange(1024) % 10)
    job = JobSpec.model_validate_json(json.dumps(spec(megabytes)))
    world = join_world("cpu", 2, patience(job.debug))
    return assemble(job, home, world, Journal(home, 0), StopSignal(), learned=None, taught=None)


def tensors(run: Run) -> dict[str, torch.Tensor]:
    """What the others save: the same weights and moments by name."""
    found = {f"model.{name}": tensor for name, tensor in run.model.state_dict().items()}
    for name, param in run.model.named_parameters():
        found |= {f"optimizer.{name}.{key}": value for key, value in run.optimizer.state[param].items()}
    return found


def step(run: Run) -> float:
    start = time.perf_counter()
    loop.step(run)
    return time.perf_counter() - start


Saver = Callable[[Run, Path], Callable[[], object]]
"""Starts a save and returns what waits for it."""


def stoker(mode: str) -> Saver:
    def save(run: Run, place: Path) -> Callable[[], object]:
        if run.staging.mode != mode:
            run.staging = Staging(mode)  # type: ignore[arg-type]  # one of the modes
        checkpoint.save(run)
        return lambda: checkpoint.settle(run)

    return save


def torch_save(run: Run, place: Path) -> Callable[[], object]:
    with place.open("wb") as file:
        torch.save(tensors(run), file)
    return lambda: None


def dcp_save(run: Run, place: Path) -> Callable[[], object]:
    dcp.save(tensors(run), checkpoint_id=place, no_dist=True)
    return lambda: None


def dcp_async(run: Run, place: Path) -> Callable[[], object]:
    future = dcp.async_save(tensors(run), checkpoint_id=place, no_dist=True)
    return future.result  # type: ignore[union-attr]  # a future, unless a stager of one's own is given


SAVERS: dict[str, Saver] = {
    "torch.save": torch_save,
    "Stoker, fork": stoker("fork"),
    "Stoker, copy": stoker("copy"),
    "Stoker, waiting": stoker("off"),
    "DCP": dcp_save,
    "DCP, async": dcp_async,
}


@dataclass(frozen=True)
class Turn:
    """One save, in seconds."""

    stall: float
    """The run stands still."""
    whole: float
    """What it costs until the step after it is done."""


def stalled(run: Run) -> float:
    """Seconds that the run says it stood still for the save that is under way."""
    return getattr(run.staging.flight, "stall", 0.0)


def saver(name: str, megabytes: int, ask: Connection) -> None:
    """The process of one saver: assembles a run, says its size, then saves whenever it is asked, until it is told to end."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder, redirect_stdout(sys.stderr):
        home, save = Path(folder) / "run", SAVERS[name]
        home.mkdir()
        run = assembled(home, megabytes)
        checkpoint.watch(run)
        loop.step(run)
        ask.send(sum(tensor.nbytes for tensor in tensors(run).values()))
        while (turn := ask.recv()) is not None:
            place = Path(folder) / str(turn)
            before = step(run)
            start = time.perf_counter()
            wait = save(run, place)
            stall, held = time.perf_counter() - start, stalled(run)
            after = step(run)
            held = stalled(run) - held
            wait()
            shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
            shutil.rmtree(home / "checkpoints", ignore_errors=True)
            ask.send(Turn(stall + held, stall + after - before))


def measure(megabytes: int, rounds: int) -> tuple[int, dict[str, Turn]]:
    """Bytes of the state, and medians by saver."""
    context, asks = multiprocessing.get_context("spawn"), {}
    turns: dict[str, list[Turn]] = {name: [] for name in SAVERS}
    size, others = 0, []
    try:
        for name in SAVERS:
            asks[name], theirs = context.Pipe()
            others.append(context.Process(target=saver, args=(name, megabytes, theirs)))
            others[-1].start()
            theirs.close()
            size = asks[name].recv()
        for turn in range(rounds + 1):  # the first warms up: pages, buffers, imports
            for name, ask in asks.items():
                ask.send(turn)
                turns[name].append(ask.recv())
        for ask in asks.values():
            ask.send(None)
        for other in others:
            other.join(10)
    finally:
        for other in others:
            other.kill()
    return size, {
        name: Turn(statistics.median(t.stall for t in taken[1:]), statistics.median(t.whole for t in taken[1:]))
        for name, taken in turns.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=500)
    options = parser.parse_args()
    size, found = measure(options.megabytes, options.rounds)
    base = found["torch.save"]
    print(f"{size / 1e6:.0f} MB of weights and moments, {options.rounds} rounds, medians; in brackets over torch.save")
    for name, turn in found.items():
        stall, whole = turn.stall / base.stall, turn.whole / base.whole
        print(f"{name:16} stands still {turn.stall:6.3f} s ({stall:6.1%})   costs in all {turn.whole:6.3f} s ({whole:6.1%})")
    verdict = "meets" if found["Stoker, copy"].stall <= 0.1 * base.stall else "misses"
    print(f"goal: a stall of at most 10 % of torch.save's; Stoker's default {verdict} it")


if __name__ == "__main__":
    main()
