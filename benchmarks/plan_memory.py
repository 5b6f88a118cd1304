"""How close is the plan to the memory that a run takes, and how long does a plan take?

Trains real jobs for two steps, each in a fresh process, and compares the largest resident memory of that process with the plan's
prediction for a fresh run; then times plans of a typical spec, one with alternatives, and one so absurd that it is refused.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from stoker.errors import SpecError  # noqa: E402
from stoker.plan import plan  # noqa: E402
from stoker.spec import JobSpec  # noqa: E402
from tests.support.plan_cases import Json, arrays, classifier, language, pictures, resolved, text  # noqa: E402

MIB = 1 << 20
WORDS = "the quick brown fox jumps over the lazy dog, " * 30_000
ROWS = 512
TEXT, ARRAYS = text(len(WORDS)), arrays(ROWS, 3, 32, 32)
RUN = """
import os, resource, sys
from pathlib import Path
from worker.trainer.__main__ import main
code = main(Path(sys.argv[1]))
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)
os._exit(0)
"""


def spoken(model: Json, batch: int, length: int = 256, **more: Any) -> JobSpec:
    data = {"source": {"type": "text", "dataset": "set@1"}, "sequence": {"length": length}, "split": {"validation": 0.001}}
    return resolved(language(model, data=data, **{"training": {"max_steps": 2, "batch_size": batch}} | more), TEXT)


def seen(model: Json, batch: int) -> JobSpec:
    return resolved(pictures(model, training={"max_steps": 2, "batch_size": batch}), ARRAYS)


def convolutions() -> Json:
    block: list[Json] = [{"type": "conv", "channels": 64, "padding": 1}, {"type": "norm"}, {"type": "activation"}]
    head: list[Json] = [{"type": "pool", "kind": "global_avg"}, {"type": "linear", "units": 10}]
    return {"type": "layers", "layers": [*block, {"type": "residual", "layers": block}, *head]}


CASES: dict[str, JobSpec] = {
    "tiny mlp": seen({"type": "mlp", "hidden_sizes": [16]}, 8),
    "mlp, weights": seen({"type": "mlp", "hidden_sizes": [3000] * 4}, 64),
    "convolutions": seen(convolutions(), 128),
    "gpt, activations": spoken({"num_layers": 6, "hidden_size": 256, "num_heads": 4}, 32),
    "gpt, bf16_mixed": spoken({"num_layers": 6, "hidden_size": 256, "num_heads": 4}, 32, precision={"mode": "bf16_mixed"}),
    "gpt, weights": spoken({"num_layers": 6, "hidden_size": 768, "num_heads": 4}, 4),
}


def measured(spec: JobSpec) -> int:
    """Largest resident memory, in bytes, of a process that runs the job."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        data = home / "data" / "set@1"
        data.mkdir(parents=True)
        (home / "spec.json").write_text(spec.model_dump_json())
        (data / "words.txt").write_text(WORDS)
        if spec.data.source.type == "arrays":
            (data / "words.txt").unlink()
            np.save(data / "x.npy", np.random.default_rng(0).standard_normal((ROWS, 3, 32, 32), np.float32))
            np.save(data / "y.npy", np.arange(ROWS) % 10)
        done = subprocess.run([sys.executable, "-c", RUN, folder], cwd=ROOT, capture_output=True, text=True, check=True)
        code, most = done.stdout.split()[-2:]
        if code != "0":
            raise SystemExit(f"the job ended with {code}: {done.stdout}{done.stderr}")
        return int(most)


def timed(run: Callable[[], object], rounds: int = 200) -> float:
    """Fastest of some rounds, in milliseconds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def refused() -> None:
    absurd = resolved(classifier({"type": "mlp", "hidden_sizes": [1_000_000] * 1000}, **IN_ARRAYS), ARRAYS)
    try:
        plan(absurd, ARRAYS)
    except SpecError:
        return
    raise SystemExit("an absurd spec was planned")


IN_ARRAYS: Json = {
    "task": {"type": "classification", "num_classes": 10},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}},
}


def main() -> None:
    print(f"{'job':20} {'measured MiB':>12} {'planned MiB':>12} {'ratio':>6}")
    for name, spec in CASES.items():
        predicted = plan(spec, TEXT if spec.data.source.type == "text" else ARRAYS).memory.fresh_bytes
        most = measured(spec)
        print(f"{name:20} {most / MIB:12.0f} {predicted / MIB:12.0f} {predicted / most:6.2f}")
    typical = CASES["gpt, activations"]
    deep = spoken({"num_layers": 10_000, "hidden_size": 64, "num_heads": 4}, 4)
    print(f"plan of a typical spec: {timed(lambda: plan(typical, TEXT)):.3f} ms")
    print(f"plan of 10,000 blocks: {timed(lambda: plan(deep, TEXT)):.3f} ms")
    print(f"plan with alternatives: {timed(lambda: plan(typical, TEXT, worker_bytes=1)):.3f} ms")
    print(f"refusal of an absurd spec, resolving included: {timed(refused, 20):.3f} ms")
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
