"""How fast does Stoker pretrain on one GPU, in tokens per second and model FLOPs utilisation (MFU), beside plain PyTorch?

Two models in bf16: the 124M GPT-2 and a 1.1B Llama-like decoder. Stoker's trainer (its own loop, feed, clip, log) and a bare
nanoGPT-style loop over the same model train in one process, chunk by chunk in alternation, on the same random tokens, both
compiled block by block or neither. MFU is counted FLOPs (`torch.utils.flop_counter`, forward and backward) over time and the
device's dense bf16 peak. Goals: 45 % for the 124M, 48 % for the 1.1B.

    python benchmarks/pretrain.py [--model gpt-124m|llama-1.1b|all] [--chunks 10] [--steps 5] [--eager]
    python benchmarks/pretrain.py --tiny          the same code on a CPU with a toy model: shows that it runs, measures nothing

Without a GPU it says so and ends with 3.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from stoker.spec import JobSpec
from worker.trainer import loop
from worker.trainer.assembly import Run, assemble
from worker.trainer.data import Description
from worker.trainer.debug import patience
from worker.trainer.runtime.control import StopSignal
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.world import join_world

NO_GPU = 3
PEAKS = {"H200": 989e12, "H100": 989e12, "GH200": 989e12, "A100": 312e12, "4090": 165e12, "L40S": 362e12}
"""Dense bf16 FLOP/s by a part of the device's name (NVIDIA's data sheets)."""

GPT_124M: dict[str, Any] = {
    "model": {
        "type": "transformer_decoder", "num_layers": 12, "hidden_size": 768, "num_heads": 12, "bias": False,
        "activation": "gelu_tanh", "position": {"type": "learned"},
    },
    "length": 1024, "vocabulary": 50304, "batch_size": 512, "micro_batch_size": 64,
}  # fmt: skip
LLAMA_1B: dict[str, Any] = {
    "model": {
        "type": "transformer_decoder", "num_layers": 22, "hidden_size": 2048, "num_heads": 32, "num_kv_heads": 4, "ffn_size": 5632,
        "bias": False, "activation": "silu", "gated_ffn": True, "normalization": {"type": "rms", "eps": 1e-5},
        "position": {"type": "rope"}, "tie_embeddings": False,
    },
    "length": 2048, "vocabulary": 32000, "batch_size": 128, "micro_batch_size": 16,
}  # fmt: skip
TINY: dict[str, Any] = {
    "model": {"type": "transformer_decoder", "num_layers": 2, "hidden_size": 32, "num_heads": 2},
    "length": 32, "vocabulary": 320, "batch_size": 8, "micro_batch_size": 4,
}  # fmt: skip
MODELS = {"gpt-124m": GPT_124M, "llama-1.1b": LLAMA_1B}


@dataclass
class RandomTokens:
    """A tokenizer that makes random ids of a text, so that no corpus and no learning of pairs is needed."""

    rows: int

    def encode(self, text: str) -> npt.NDArray[np.int32]:
        return np.random.default_rng(len(text)).integers(0, self.rows, len(text), dtype=np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        return " ".join(map(str, ids))

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        return np.ones(self.rows, np.int64)

    def dump(self) -> str:
        return "{}"


def document(case: dict[str, Any], device: str) -> dict[str, Any]:
    """The exact job spec."""
    return {
        "task": {"type": "causal_lm"},
        "model": case["model"],
        "data": {
            "source": {"type": "text", "dataset": "set@1"},
            "tokenizer": {"type": "bpe", "vocab_size": case["vocabulary"]},
            "sequence": {"length": case["length"]},
            "split": {"validation": 0.0},
            "loader": {"pin_memory": device == "cuda"},
        },
        "optimizer": {"type": "adamw", "lr": 6e-4, "beta2": 0.95, "weight_decay": 0.1},
        "training": {
            "max_steps": 10**9,
            "batch_size": case["batch_size"],
            "micro_batch_size": case["micro_batch_size"],
            "gradient_clipping": {"type": "norm", "max_norm": 1.0},
        },
        "precision": {"mode": "bf16_mixed"},
        "reproducibility": {"deterministic": False},
        "resources": {"device": device},
        "logging": {"interval": {"steps": 10}},
        "evaluation": {"interval": {"steps": 10**9}},
        "checkpoint": {"interval": {"steps": 10**9}},
    }


def stoker_run(case: dict[str, Any], device: str, compiled: bool) -> Run:
    home = Path(tempfile.mkdtemp(prefix="stoker-bench-"))
    (home / "data" / "set@1").mkdir(parents=True)
    windows = 2 * case["batch_size"]
    (home / "data" / "set@1" / "text.txt").write_bytes(b"x" * (windows * case["length"] + 1))
    job = JobSpec.model_validate(document(case, device), strict=False)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    learned = Description((case["length"],), case["vocabulary"], codec=RandomTokens(case["vocabulary"]))
    world = join_world("cuda" if device == "cuda" else "cpu", 1, patience(job.debug))
    run = assemble(job, home, world, Journal(home, 0), StopSignal(), learned=learned, taught=None)
    if compiled:
        compile_blocks(run.model)
    return run


def compile_blocks(model: nn.Module) -> None:
    for block in model.get_submodule("blocks").children():
        block.compile()


class BareLoop:
    """The loop of nanoGPT: accumulation under autocast, clip, fused AdamW, a line of log every 10 steps."""

    def __init__(self, run: Run, case: dict[str, Any], model: nn.Module, device: str) -> None:
        self.model, self.device = model, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        self.micro, self.passes = case["micro_batch_size"], case["batch_size"] // case["micro_batch_size"]
        self.x, self.y = run.data.train.slice(0, len(run.data.train), torch.device("cpu"))
        self.file, self.step, self.at = (run.home / "bare.jsonl").open("a", buffering=1), 0, 0
        if device == "cuda":
            self.x, self.y = self.x.pin_memory(), self.y.pin_memory()

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.at % (len(self.x) - self.micro + 1)
        self.at += self.micro
        part = slice(start, start + self.micro)
        return self.x[part].to(self.device, non_blocking=True), self.y[part].to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, torch.bfloat16)

    def chunk(self, steps: int) -> None:
        for _ in range(steps):
            for _ in range(self.passes):
                x, y = self.batch()
                with self.autocast():
                    loss = F.cross_entropy(self.model(x).flatten(0, -2), y.flatten()) / self.passes
                loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % 10 == 0:
                self.file.write(json.dumps({"step": self.step, "loss": loss.item() * self.passes}) + "\n")


def stoker_chunk(run: Run, steps: int) -> None:
    run.ended, run.clock.total = None, run.clock.step + steps
    with (run.home / "log").open("a") as log, redirect_stdout(log):
        loop.repeat(run)


def counted(run: Run, case: dict[str, Any]) -> int:
    """FLOPs of a forward and backward pass over one sample, counted by PyTorch."""
    ids = torch.zeros(1, case["length"], dtype=torch.long, device=run.world.device)
    with FlopCounterMode(display=False) as counter:
        run.model(ids).sum().backward()
    run.model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def seconds(work: Callable[[], None], device: str) -> float:
    wait = torch.cuda.synchronize if device == "cuda" else nullcontext
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def peak() -> float | None:
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in PEAKS.items() if part in name), None)


def measure(name: str, case: dict[str, Any], device: str, chunks: int, steps: int, compiled: bool) -> dict[str, Any]:
    run = stoker_run(case, device, compiled=False)
    flops = counted(run, case)
    twin = deepcopy(run.model)
    if compiled:
        compile_blocks(run.model)
        compile_blocks(twin)
    bare = BareLoop(run, case, twin, device)
    stoker_chunk(run, 2)
    bare.chunk(2)
    took: dict[str, list[float]] = {"stoker": [], "bare": []}
    for turn in range(chunks):
        for who in ("stoker", "bare") if turn % 2 else ("bare", "stoker"):
            work = (lambda: stoker_chunk(run, steps)) if who == "stoker" else (lambda: bare.chunk(steps))
            took[who].append(seconds(work, device))
    samples, top = steps * case["batch_size"], peak() if device == "cuda" else None
    figures: dict[str, Any] = {"case": name, "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    figures |= {"torch": torch.__version__, "compiled": compiled, "flops_per_token": flops // case["length"]}
    for who, times in took.items():
        middle = statistics.median(times)
        figures[f"{who}_tokens_per_second"] = round(samples * case["length"] / middle)
        figures[f"{who}_mfu"] = None if top is None else round(samples * flops / middle / top, 4)
    figures["ratio"] = round(statistics.median(a / b for a, b in zip(took["stoker"], took["bare"], strict=True)), 4)
    if device == "cuda":
        figures["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    parser.add_argument("--chunks", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--eager", action="store_true", help="compile neither of the two")
    parser.add_argument("--tiny", action="store_true", help="a toy model on the CPU: the code, not the figure")
    asked = parser.parse_args()
    if asked.tiny:
        print(json.dumps(measure("tiny", TINY, "cpu", 2, 2, compiled=False)))
        return 0
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing was measured", file=sys.stderr)
        return NO_GPU
    for name in MODELS if asked.model == "all" else [asked.model]:
        print(json.dumps(document(MODELS[name], "cuda")))
        print(json.dumps(measure(name, MODELS[name], "cuda", asked.chunks, asked.steps, not asked.eager)), flush=True)
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
