"""What an interpreter imports ahead of time, so that a run forked from it starts at once."""

import gc
import importlib
import os

MODULES = (
    "torch",
    "torch._dynamo",  # the first optimizer imports it, 2 s
    "torch.nn.parallel",
    "torch.distributed",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.parallel",
    "tokenizers",
    "safetensors.torch",
    "pyarrow.compute",  # columns to numbers, 0.15 s
    "pyarrow.csv",
    "pyarrow.parquet",
    "PIL.Image",
    "worker.trainer.__main__",
    "worker.trainer.evaluation.metrics",  # and torchmetrics
)

QUIET = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Keeps NumPy and Arrow from starting threads on import: a process with threads cannot be forked safely."""


def warm_imports() -> None:
    """Import everything a run may need. It computes nothing, so no thread is started and the process may fork."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    gc.disable()  # imports make much and drop little: looking for garbage meanwhile is a fifth of the time
    try:
        for name in MODULES:
            importlib.import_module(name)
    finally:
        gc.enable()
