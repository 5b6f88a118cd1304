"""What an interpreter imports ahead of time, so that a run forked from it starts at once."""

import importlib

MODULES = (
    "torch",
    "torch._dynamo",  # the first optimizer imports it, 2 s
    "torch.nn.parallel",
    "torch.distributed",
    "torchmetrics.classification",
    "torchmetrics.regression",
    "tokenizers",
    "safetensors.torch",
    "pyarrow.compute",  # columns to numbers, 0.15 s
    "pyarrow.csv",
    "pyarrow.parquet",
    "PIL.Image",
    "worker.trainer.__main__",
    "worker.trainer.metrics",
)


def warm_imports() -> None:
    """Import everything a run may need. It computes nothing, so no thread is started and the process may fork."""
    for name in MODULES:
        importlib.import_module(name)
