"""Features beside strategies: small jobs for each pair, and what the published table says of them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts, TextFacts
from stoker.spec import JobSpec
from stoker.spec.derived.automatic import completed
from stoker.spec.rules import check
from tests.support.trainer_runs import TEXT, blobs

Json = dict[str, Any]

TABLE = Path(__file__).parents[2] / "docs" / "how-to" / "distribution.md"

GPT: Json = {
    "task": {"type": "causal_lm"},
    "model": {
        "type": "transformer_decoder",
        "num_layers": 2,
        "hidden_size": 16,
        "num_heads": 4,
        "tie_embeddings": False,
        "bias": False,  # the key's has a gradient of zero, of which Adam would make steps out of rounding errors
        "init": {"type": "normal", "std": 0.2},
    },
    "data": {
        "source": {"type": "text", "dataset": "set@1"},
        "tokenizer": {"type": "char"},
        "sequence": {"length": 8},
        "split": {"validation": 0.15, "test": 0.1},
    },
    "optimizer": {"type": "adamw", "lr": 0.001, "eps": 1e-4},  # rare tokens hardly move: no steps out of rounding errors
    # 56 windows to train on: the last batch of an epoch has 8
    "training": {"max_steps": 8, "batch_size": 16},
    "evaluation": {"interval": {"steps": 5}, "metrics": ["perplexity"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True},
    "checkpoint": {"interval": {"steps": 6}},
}
MLP: Json = {
    "task": {"type": "classification"},
    "model": {"type": "mlp", "hidden_sizes": [33, 20]},
    "data": {"source": {"type": "arrays", "dataset": "set@1"}, "split": {"validation": 0.2, "test": 0.07}},
    "loss": {"type": "cross_entropy"},
    "optimizer": {"type": "adamw", "lr": 0.001},
    "training": {"max_steps": 8, "batch_size": 48},
    "evaluation": {"interval": {"steps": 5}, "metrics": ["accuracy"]},
    "logging": {"interval": {"steps": 3}, "gradient_norm": True},
    "checkpoint": {"interval": {"steps": 6}},
}

STRATEGIES: dict[str, Json] = {
    "ddp": {"strategy": "ddp", "processes_per_node": 2},
    "fsdp": {"strategy": "fsdp", "processes_per_node": 2},
    "hsdp": {"strategy": "fsdp", "processes_per_node": 4, "replicate": 2},
    "tensor": {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}},
    "sequence": {
        "strategy": "fsdp",
        "processes_per_node": 4,
        "tensor_parallel": {"degree": 2, "sequence_parallel": True},
    },
    "context": {"strategy": "ddp", "processes_per_node": 2, "context_parallel": {"degree": 2}},
    "pipeline": {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2, "microbatches": 2}},
    "servers": {"strategy": "parameter_server", "processes_per_node": 3, "servers": 1},
}
"""By the heading of their column."""

LSTM: Json = {"type": "lstm", "num_layers": 2, "hidden_size": 12, "embedding_size": 8}
TBPTT: Json = {"data": {"loader": {"shuffle": False, "drop_last": True}}, "training": {"batch_size": 8}}
FEATURES: dict[str, tuple[Json, Json]] = {
    "decoder": (GPT, {}),
    "accumulation": (GPT, {"training": {"micro_batch_size": 4}}),
    "clipping by norm": (GPT, {"training": {"gradient_clipping": {"type": "norm", "max_norm": 0.5}}}),
    "clipping by value": (GPT, {"training": {"gradient_clipping": {"type": "value", "value": 0.01}}}),
    "tied head": (GPT, {"model": {"tie_embeddings": True}}),
    "sgd with momentum": (GPT, {"optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9}}),
    "early stopping": (GPT, {"training": {"early_stopping": {"patience": 9}}}),
    "ema": (GPT, {"training": {"ema": {"decay": 0.9}}}),
    "bf16_mixed": (GPT, {"precision": {"mode": "bf16_mixed"}}),
    "fp16_mixed": (GPT, {"precision": {"mode": "fp16_mixed", "loss_scale": {"mode": "dynamic", "init_scale": 1024.0}}}),
    "bf16_pure": (GPT, {"precision": {"mode": "bf16_pure"}}),
    "activation checkpointing": (GPT, {"activation_checkpointing": {"type": "full"}}),
    "dropout": (GPT, {"model": {"dropout": 0.1, "embedding_dropout": 0.1}}),
    "attention dropout": (GPT, {"model": {"attention_dropout": 0.1}}),
    "skipped steps": (GPT, {"debug": {"nan_policy": {"type": "skip_step"}}}),
    "rollback": (GPT, {"debug": {"nan_policy": {"type": "rollback"}}}),
    "mlp": (MLP, {}),
    "batch normalization": (MLP, {"model": {"normalization": {"type": "batch"}}, "data": {"loader": {"drop_last": True}}}),
    "adversarial training": (MLP, {"training": {"adversarial": {"method": "fgsm"}}}),
    "probes": (MLP, {"debug": {"probes": [{"module": "0"}]}}),
    "recurrent": (GPT, {"model": LSTM}),
    "tbptt": (GPT, {**TBPTT, "model": LSTM, "training": {"batch_size": 8, "tbptt": {"steps": 4, "stateful": True}}}),
}
"""By the heading of their row: what the job is made of, and what is changed in it."""


def document(feature: str, strategy: str | None) -> Json:
    """The job of a pair; of one process without a strategy."""
    base, patch = FEATURES[feature]
    spec = _merged(base, patch)
    return spec if strategy is None else spec | {"distributed": STRATEGIES[strategy]}


def _merged(base: Json, patch: Json) -> Json:
    """A changed model or choice of another type takes the place of the old one."""
    out = dict(base)
    for key, value in patch.items():
        old = out.get(key)
        replaced = isinstance(value, dict) and isinstance(old, dict) and value.get("type", old.get("type")) == old.get("type")
        out[key] = _merged(old, value) if replaced and isinstance(old, dict) else value
    return out


def broken_rules(feature: str, strategy: str) -> set[str]:
    """Ids of the rules that refuse a pair."""
    known = _facts(feature)
    spec = completed(JobSpec.model_validate_json(json.dumps(document(feature, strategy))), known)
    return {found.code for found in check(spec, known) if found.severity == "error"}


def _facts(feature: str) -> DatasetFacts:
    content: TextFacts | ArrayFacts
    if FEATURES[feature][0] is GPT:
        content = TextFacts(bytes=len(TEXT), characters=len(TEXT), distinct_characters=len(set(TEXT)))
    else:
        y = blobs()["y"]
        counts = {str(name): int(count) for name, count in zip(*np.unique(y, return_counts=True), strict=True)}
        target = ArrayFile(dtype="<i8", shape=(len(y),), distinct=len(counts), counts=counts)
        content = ArrayFacts(files={"x.npy": ArrayFile(dtype="<f4", shape=(len(y), 12)), "y.npy": target})
    return DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1000, content=content)


def published() -> dict[tuple[str, str], str]:
    """Cells of the table by row and column: a tolerance, `runs`, or the id of a rule."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    head = next(i for i, row in enumerate(rows) if row[0] == "feature")
    names = [re.sub(r"\W.*", "", name) for name in rows[head]]
    table: dict[tuple[str, str], str] = {}
    for row in rows[head + 2 :]:
        table |= {(row[0], name): cell for name, cell in zip(names[1:], row[1:], strict=True)}
    return table
