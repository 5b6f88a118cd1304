"""No knob is accepted and ignored, for real: small jobs with every member of every union run while a spy notes what is read."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors.numpy import save_file

from stoker.facts import ArrayFacts, ArrayFile, ColumnFacts, DatasetFacts, ImageFacts, TableFacts, TextFacts
from stoker.spec import JobSpec
from stoker.spec._base import Spec
from stoker.spec.automatic import completed
from stoker.spec.initialization import Pretrained, Warm

ROOT = Path(__file__).parents[2]
CHOICES = ("type", "strategy")
"""Which member of a union a document chose: matched by class, not read. So is any other field that has one value only."""

ELSEWHERE = {
    "JobSpec.api_version": "the grammar's upgrade, before there is a spec",
    "JobSpec.name": "filing",
    "JobSpec.project": "filing",
    "JobSpec.labels": "filing",
    "JobSpec.priority": "the scheduler's order",
    **{
        f"{strategy}.min_nodes": "what the scheduler places"
        for strategy in ("Auto", "DDP", "FSDP", "Horovod", "LocalSGD", "ParameterServer")
    },
    "Resources.memory_gb": "what the scheduler places",
    "Resources.placement": "what the scheduler places",
    "CNN.preset": "written out before there is a spec",
    "TransformerDecoder.preset": "written out before there is a spec",
    "TransformerEncoder.preset": "written out before there is a spec",
    "Resources.max_retries": "the server's retries",
    "Resources.time_limit_seconds": "the server's time limit",
    "Checkpoint.keep_last": "the server's retention",
    "Distillation.teacher": "the server, which binds it to files that the agent brings",
    "Teacher.job": "the server, which binds it to files that the agent brings",
    "Teacher.checkpoint": "the server, which binds it to files that the agent brings",
    "Loader.pin_memory": "memory is pinned for a GPU only",
}
"""Fields that a run on a CPU does not read, and who does; `test_dead_knobs` finds each by name."""

SPY = """
import json, os, sys
from pathlib import Path
from stoker.spec._base import Spec

reads = set()

def spy(self, name, get=object.__getattribute__):
    frame = sys._getframe(1)
    module = frame.f_globals.get("__name__", "")
    # Properties of the spec read for the trainer; its validators do not count.
    if module.startswith(("worker.", "stoker.spec.")) and frame.f_code.co_name != "_one_unit":
        reads.add(f"{type(self).__name__}.{name}")
    return get(self, name)

Spec.__getattribute__ = spy
from worker.trainer.__main__ import main

def run(answer, homes):
    codes = [main(Path(home)) for home in homes]
    Path(answer).write_text(json.dumps({"codes": codes, "reads": sorted(reads)}))
    os._exit(0)

# argv: where answers go, how many jobs are for two ranks, these with a port each, and jobs for one rank. Ranks are forked, so
# that torch is imported once.
answers, count, *rest = sys.argv[1:]
together, alone = rest[: 2 * int(count)], rest[2 * int(count) :]
for home, port in zip(together[::2], together[1::2]):
    for rank in ("0", "1"):
        if os.fork() == 0:
            os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_PORT=port)
            run(f"{answers}/{Path(home).name}-rank{rank}.json", [home])
    os.wait(), os.wait()
run(f"{answers}/alone.json", alone)
"""


def unread(specs: Iterable[type[Spec]], reads: set[str]) -> list[str]:
    fields = {
        f"{spec.__name__}.{name}"
        for spec in specs
        for name, field in spec.model_fields.items()
        if name not in CHOICES and not (get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)
    }
    return sorted(fields - reads - ELSEWHERE.keys())


def _members() -> list[type[Spec]]:
    """Classes that a document can hold: those without a class of the grammar below them."""
    found, todo = [], list(Spec.__subclasses__())
    while todo:
        spec = todo.pop()
        below = [child for child in spec.__subclasses__() if child.__module__.startswith("stoker.spec.")]
        todo += below
        if not below and spec.__module__.startswith("stoker.spec."):
            found.append(spec)
    return sorted(set(found), key=lambda spec: spec.__name__)


ROWS = 60
WORDS = "all work and no play makes jack a dull boy. " * 40
CLASSES = {str(i): ROWS // 3 for i in range(3)}
NUMBERS = tuple(ColumnFacts(name=name, kind="number") for name in ("a", "b", "c"))
CONTENTS: dict[str, TableFacts | TextFacts | ImageFacts | ArrayFacts] = {
    "rows.csv": TableFacts(
        format="csv", rows=ROWS, columns=(*NUMBERS, ColumnFacts(name="y", kind="integer", distinct=3, counts=CLASSES))
    ),
    "labels.csv": TableFacts(
        format="csv",
        rows=ROWS,
        columns=(
            *NUMBERS,
            ColumnFacts(name="y", kind="integer", distinct=3, counts=CLASSES),
            ColumnFacts(name="even", kind="integer", distinct=2, counts={"0": ROWS // 2, "1": ROWS // 2}),
            ColumnFacts(name="weight", kind="integer", distinct=3, counts=CLASSES),
        ),
    ),
    "reviews.csv": TableFacts(
        format="csv",
        rows=ROWS,
        columns=(
            ColumnFacts(name="review", kind="string", distinct=ROWS),
            ColumnFacts(name="y", kind="integer", distinct=3, counts=CLASSES),
        ),
    ),
    "rows.parquet": TableFacts(format="parquet", rows=ROWS, columns=NUMBERS),
    "words.txt": TextFacts(bytes=len(WORDS), characters=len(WORDS), distinct_characters=len(set(WORDS))),
    "pictures": ImageFacts(counts={"cat": 30, "dog": 30}, height=8, width=8),
    "sequences": ArrayFacts(
        files={
            "x.npy": ArrayFile(dtype="<f4", shape=(ROWS, 6, 4)),
            "y.npy": ArrayFile(dtype="<i8", shape=(ROWS,), distinct=3, counts=CLASSES),
        }
    ),
    "x.npy": ArrayFacts(
        files={
            "x.npy": ArrayFile(dtype="<f4", shape=(ROWS, 2, 12, 12)),
            "y.npy": ArrayFile(dtype="<i8", shape=(ROWS,), distinct=3, counts=CLASSES),
        }
    ),
}


def _write(folder: Path, kind: str) -> None:
    random = np.random.default_rng(0)
    values, classes = random.standard_normal((ROWS, 3)), np.arange(ROWS) % 3
    match kind:
        case "rows.csv":
            lines = [";".join([*map(str, row), str(y)]) for row, y in zip(values, classes, strict=True)]
            (folder / kind).write_text("\n".join(["a;b;c;y", *lines]) + "\n")
        case "labels.csv":
            lines = [
                ",".join([*map(str, row), f"{y},{i % 2},{y}"]) for i, (row, y) in enumerate(zip(values, classes, strict=True))
            ]
            (folder / kind).write_text("\n".join(["a,b,c,y,even,weight", *lines]) + "\n")
        case "reviews.csv":
            (folder / kind).write_text("\n".join(["review,y", *(f"word {i} and on,{y}" for i, y in enumerate(classes))]) + "\n")
        case "rows.parquet":
            pq.write_table(pa.table(dict(zip("abc", values.T, strict=True))), folder / kind)
        case "words.txt":
            (folder / kind).write_text(WORDS)
        case "pictures":
            for i in range(ROWS):
                path = folder / ("cat" if i % 2 else "dog") / f"{i}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(random.integers(0, 255, (8, 8), np.uint8)).save(path)
        case _:
            shape = (ROWS, 6, 4) if kind == "sequences" else (ROWS, 2, 12, 12)
            np.save(folder / "x.npy", random.standard_normal(shape, np.float32))
            np.save(folder / "y.npy", classes)


def _source(kind: str, **more: Any) -> dict[str, Any]:
    return {"source": {"type": kind, "dataset": "set@1", **more}, "split": {"validation": 0.2, "test": 0.2}}


CONV: dict[str, Any] = {"type": "conv", "channels": 4, "kernel_size": 3, "padding": 1, "groups": 2}
STACK = [
    {"type": "conv", "channels": 4, "stride": 1, "dilation": 1, "bias": False},
    *({"type": "norm", "kind": kind} for kind in ("batch", "layer", "rms")),
    {"type": "activation", "kind": "elu"},
    {"type": "residual", "layers": [CONV]},
    {"type": "dropout", "p": 0.1},
    {"type": "pool", "kind": "max", "kernel_size": 2, "stride": 2},
    {"type": "flatten"},
    {"type": "linear", "units": 3},
]
ATTACK = {"method": "pgd", "clip": {"low": -9.0, "high": 9.0}}
SMALL_GPT = {"type": "transformer_decoder", "num_layers": 1, "hidden_size": 16, "num_heads": 2}
ONCE: dict[str, Any] = {"interval": {"steps": 1}}
INSIDE = {
    "histograms": ONCE,
    "gradients": ONCE,
    "probes": [ONCE | {"module": "0"}],
    "profiler": {"start_step": 1, "active_steps": 1},
}
EXPLAINED = [
    "integrated_gradients",
    "saliency",
    "deep_lift",
    "gradient_shap",
    "lrp",
    "occlusion",
    "feature_ablation",
    "permutation_importance",
]
"""Methods beside layer_grad_cam, each of which explains a job of its own."""
SCORES = ["accuracy", {"type": "accuracy", "top_k": 2}, "precision", "recall", "f1", "auroc"]


TWO = {"num_layers": 2, "dropout": 0.1}
"""Recurrent layers with something between them."""


def _text_job(model: dict[str, Any], **training: Any) -> dict[str, Any]:
    return {
        "task": {"type": "causal_lm"},
        "model": model,
        "data": _source("text") | {"sequence": {"length": 16}},
        "training": {"max_steps": 2, "batch_size": 8} | training,
    }


JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "csv": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {
                "type": "mlp",
                "hidden_sizes": [4],
                "normalization": {"type": "batch"},
                "dropout": 0.1,
                "init": {"type": "normal"},
            },
            "data": _source("csv", delimiter=";", columns=["a", "b"]) | {"normalization": {"type": "standard"}},
            "loss": {"type": "cross_entropy", "class_weights": "balanced"},
            "optimizer": {"type": "sgd", "momentum": 0.9, "nesterov": True},
            "schedule": {"type": "constant", "warmup_ratio": 0.5},
            "training": {"epochs": 2, "batch_size": 8, "gradient_clipping": {"type": "norm"}, "early_stopping": {"patience": 1}},
            "evaluation": {"metrics": SCORES, "interval": {"steps": 2}, "batches": 1},
        },
    ),
    "parquet": (
        "rows.parquet",
        {
            "task": {"type": "regression", "target": ["b", "c"]},
            "model": {"type": "mlp", "hidden_sizes": [4], "normalization": {"type": "layer"}},
            "data": _source("parquet") | {"normalization": {"type": "minmax"}},
            "optimizer": {"type": "adam"},
            "schedule": {"type": "cosine", "warmup_steps": 1},
            "training": {
                "max_steps": 3,
                "batch_size": 8,
                "gradient_clipping": {"type": "value"},
                "ema": {"start": {"steps": 2}},
                "adversarial": ATTACK,
            },
            "evaluation": {"metrics": ["mae", "rmse", "r2"]},
            "logging": {"interval": {"seconds": 1.0}},
            "precision": {"mode": "fp16_mixed", "loss_scale": {"mode": "dynamic"}},
        },
    ),
    "tasks": (
        "rows.csv",
        {
            "task": {
                "type": "multi_task",
                "tasks": [
                    {"type": "classification", "name": "which", "target": "y", "weight": 0.5},
                    {"type": "regression", "name": "where", "target": ["b", "c"]},
                ],
                "weighting": {"type": "uncertainty"},
            },
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 2, "batch_size": 8},
        },
    ),
    "tasks_fixed": (
        "rows.csv",
        {
            "task": {
                "type": "multi_task",
                "tasks": [
                    {"type": "classification", "name": "which", "target": "y"},
                    {"type": "regression", "name": "where", "target": "c", "weight": 0.0},
                ],
            },
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 2, "batch_size": 8},
        },
    ),
    "regular": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "regularization": {
                "l1": {"strength": 0.01, "proximal": True},
                "l2": {"strength": 0.01},
                "elastic_net": {"strength": 0.01},
                "group_lasso": {"strength": 0.01},
                "orthogonal": {"strength": 0.01},
                "spectral_norm": {},
            },
            "training": {"max_steps": 2, "batch_size": 8},
            "evaluation": {"sparsity_report": {}, "fit_diagnosis": {"samples": 20, "least": 0.0}},
        },
    ),
    "fitting": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 4, "batch_size": 8, "dynamic_batch": {"mode": "fit_memory"}},
        },
    ),
    "horovod": (  # of one rank, which needs no Horovod
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 1, "batch_size": 8},
            "distributed": {"strategy": "horovod", "processes_per_node": 1},
        },
    ),
    "growing": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {
                "max_steps": 6,
                "batch_size": 8,
                "dynamic_batch": {"mode": "on_plateau", "patience": 1, "min_delta": 1e6, "max": 12},
            },
            "evaluation": {"interval": {"steps": 1}},
        },
    ),
    "scheduled": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {
                "epochs": 2,
                "batch_size": 8,
                "dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"steps": 2}, "batch_size": 12}]},
            },
        },
    ),
    "diverging": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "optimizer": {"type": "sgd", "lr": 1e12},
            "training": {"max_steps": 12, "batch_size": 8},
            "debug": {
                "nan_policy": {"type": "rollback", "lr_factor": 1e-12},
                "spike": {"window": 4, "threshold": 1.001, "policy": {"type": "skip_step", "max_skips": 12}},
            },
        },
    ),
    "arrays": (
        "x.npy",
        {
            "task": {"type": "classification"},
            "model": {"type": "layers", "layers": STACK},
            "data": _source("arrays"),
            "schedule": {"type": "step", "step_size": {"epochs": 1}},
            "training": {"adversarial": {"method": "fgsm"}, "max_steps": 2, "batch_size": 8},
            "debug": INSIDE,
            "interpretability": {"method": "layer_grad_cam", "samples": 2},
            "logging": {"timing": True, "sinks": ["jsonl", "tensorboard"], "hyperparameters": True},
        },
    ),
    "contest": (
        "x.npy",
        {
            "task": {"type": "gan", "discriminator_steps": 2, "discriminator_optimizer": {"type": "adam"}, "samples": 3},
            "model": {
                "type": "gan",
                "latent_dim": 3,
                "latent": "uniform",
                "output": "tanh",
                "generator": {"type": "mlp", "hidden_sizes": [4]},
                "discriminator": {"type": "mlp", "hidden_sizes": [4]},
            },
            "data": _source("arrays"),
            "loss": {"type": "non_saturating", "label_smoothing": 0.1},
            "training": {"max_steps": 2, "batch_size": 8},
            "evaluation": {"metrics": ["mmd", "frechet_distance"]},
        },
    ),
    "contest_hinge": (
        "x.npy",
        {
            "task": {"type": "gan"},
            "model": {"type": "gan"},
            "data": _source("arrays"),
            "loss": {"type": "hinge"},
            "training": {"max_steps": 1, "batch_size": 8},
        },
    ),
    "contest_slopes": (
        "x.npy",
        {
            "task": {"type": "gan"},
            "model": {"type": "gan"},
            "data": _source("arrays"),
            "loss": {"type": "wasserstein"},
            "training": {"max_steps": 1, "batch_size": 8},
        },
    ),
    "lesson": (
        "x.npy",
        {
            "task": {"type": "classification"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("arrays"),
            "training": {
                "max_steps": 2,
                "batch_size": 8,
                "distillation": {
                    "teacher": {"job": "job_1", "checkpoint": 2},
                    "layer_map": [{"student": "3", "teacher": "9"}],
                },
            },
        },
    ),
    "pictures": (
        "pictures",
        {
            "task": {"type": "classification"},
            "model": {"type": "mlp", "normalization": {"type": "rms"}},
            "data": _source("image_folder", channels=1),
            "training": {"max_seconds": 0.01, "batch_size": 8, "swa": {"start": {"steps": 1}}, "adversarial": {"method": "free"}},
            "precision": {"mode": "fp16_pure", "loss_scale": {"mode": "static", "scale": 8.0}},
        },
    ),
    "byte": (
        "words.txt",
        {
            "task": {"type": "causal_lm"},
            "model": SMALL_GPT | {"position": {"type": "rope"}, "normalization": {"type": "rms"}, "attention_dropout": 0.1},
            "data": _source("text") | {"sequence": {"length": 16}},
            "loss": {"type": "cross_entropy", "chunk_tokens": 20},
            "training": {"max_tokens": 500, "batch_size": 8},
            "evaluation": {"metrics": ["perplexity", "bits_per_byte"], "interval": {"tokens": 200}},
        },
    ),
    "char": (
        "words.txt",
        {
            "task": {"type": "causal_lm"},
            "model": SMALL_GPT | {"position": {"type": "sinusoidal"}, "num_layers": 2, "tie_embeddings": False},
            "data": _source("text") | {"tokenizer": {"type": "char"}, "sequence": {"length": 16}},
            "training": {"max_steps": 2, "batch_size": 8},
            "schedule": {"type": "wsd", "decay_ratio": 0.5},
            "activation_checkpointing": {"type": "selective", "every": 1},
        },
    ),
    "stacked": (
        "x.npy",
        {
            "task": {"type": "classification"},
            "model": {
                "type": "layers",
                "layers": [
                    {"type": "reshape", "shape": [4, 12, 6]},
                    {"type": "norm", "kind": "group"},
                    {"type": "residual", "layers": [CONV], "shortcut": [{"type": "conv", "channels": 4, "kernel_size": 1}]},
                    {"type": "pool", "kind": "adaptive_avg", "output_size": 4},
                    {"type": "rearrange", "to": "steps"},
                    {"type": "attention", "num_heads": 2},
                    {"type": "rnn", "cell": "rnn", "units": 4, "says": "steps"},
                    {"type": "rnn", "cell": "lstm", "units": 4},
                    {"type": "linear", "units": 3},
                ],
                "sharing": [{"source": "5.q", "target": "5.k"}],
            },
            "data": _source("arrays"),
            "training": {"max_steps": 2, "batch_size": 8},
        },
    ),
    "network": (
        "x.npy",
        {
            "task": {"type": "classification"},
            "model": {"type": "cnn", "block": "bottleneck", "normalization": {"type": "group"}, "dropout": 0.1},
            "data": _source("arrays"),
            "training": {"max_steps": 2, "batch_size": 8},
        },
    ),
    "written": (
        "words.txt",
        _text_job({"type": "layers", "layers": [{"type": "embedding", "size": 4}, {"type": "linear", "units": 256}]}),
    ),
    "rnn": ("words.txt", _text_job({"type": "rnn", "hidden_size": 8} | TWO)),
    "lstm": ("words.txt", _text_job({"type": "lstm", "hidden_size": 8, "proj_size": 4, "forget_bias": 1.0} | TWO)),
    "gru": ("words.txt", _text_job({"type": "gru", "hidden_size": 8, "tie_embeddings": True} | TWO, tbptt={"steps": 8})),
    "alibi": (
        "words.txt",
        _text_job(
            SMALL_GPT
            | {
                "position": {"type": "alibi"},
                "window": 4,
                "attention_softcap": 9.0,
                "final_softcap": 9.0,
                "value_dim": 4,
                "embedding_size": 8,
            }
        ),
    ),
    "stretched": (
        "words.txt",
        _text_job(SMALL_GPT | {"position": {"type": "rope", "scaling": {"type": "ntk"}}}),
    ),
    "divided": (
        "words.txt",
        _text_job(SMALL_GPT | {"position": {"type": "rope", "scaling": {"type": "linear"}}}),
    ),
    "masked": (
        "words.txt",
        _text_job(SMALL_GPT | {"type": "transformer_encoder", "segments": 2, "embedding_norm": True, "head_transform": True})
        | {"task": {"type": "masked_lm"}},
    ),
    "sequences": (
        "sequences",
        {
            "task": {"type": "classification"},
            "model": SMALL_GPT | {"type": "transformer_encoder", "pooling": "first", "pooler": True},
            "data": _source("arrays"),
            "training": {"max_steps": 2, "batch_size": 8},
        },
    ),
    "reviews": (
        "reviews.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": SMALL_GPT | {"type": "transformer_encoder"},
            "data": _source("csv", text="review") | {"sequence": {"length": 8}},
            "training": {"max_steps": 1, "batch_size": 8},
        },
    ),
    "bpe": (
        "words.txt",
        {
            "task": {"type": "causal_lm"},
            "model": SMALL_GPT,
            "data": _source("text") | {"tokenizer": {"type": "bpe", "vocab_size": 270}, "sequence": {"length": 8}},
            "training": {"max_steps": 2, "batch_size": 8},
            "precision": {"mode": "bf16_mixed"},
        },
    ),
}
JOBS["tuned"] = (
    "rows.csv",
    {
        "task": {"type": "classification", "target": "y"},
        "model": {"type": "mlp", "hidden_sizes": [4, 4]},
        "initialization": {
            "start": {"type": "pretrained", "source": "weights@1", "strict": False, "exclude_keys": ["2.*"], "reset_head": True},
            "overrides": [
                {"pattern": "2", "init": {"type": "constant"}},
                {"pattern": "0", "init": {"type": "normal"}},
            ],
            "finetune": {
                "freeze": ["0.*"],
                "unfreeze_at": [
                    {"pattern": "2.weight", "at": {"steps": 1}},
                    {"pattern": "2.bias", "at": {"epochs": 1}},
                    {"pattern": "0.weight", "at": {"tokens": 100}},
                ],
                "layer_lr_decay": 0.5,
            },
        },
        "data": _source("csv", delimiter=";"),
        "training": {"max_steps": 2, "batch_size": 8},
    },
)
JOBS["warmed"] = (
    "rows.csv",
    {
        **JOBS["tuned"][1],
        "model": {"type": "mlp", "hidden_sizes": [4, 5]},  # one layer that the source has in another shape
        "initialization": {
            "start": {
                "type": "warm",
                "checkpoint": {"job": "job_" + "0" * 26, "checkpoint": 2},
                "strict": False,
                "exclude_keys": ["2.bias"],
                "reset_head": True,
            }
        },
    },
)
JOBS["adapted"] = (
    "rows.csv",
    {
        "task": {"type": "classification", "target": "y"},
        "model": {"type": "mlp", "hidden_sizes": [4]},
        "initialization": {"finetune": {"adapter": {"type": "lora", "rank": 2, "targets": ["*"], "train": ["0.bias"]}}},
        "data": _source("csv", delimiter=";"),
        "training": {"max_steps": 1, "batch_size": 8},
        "checkpoint": {"export": ["safetensors"]},
    },
)
JOBS |= {
    f"starts_{kind}": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4], "init": {"type": kind}},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 1, "batch_size": 8},
        },
    )
    for kind in ("uniform", "trunc_normal", "xavier", "he", "lecun", "orthogonal")
}
OPTIMIZERS: list[dict[str, Any]] = [
    {"type": "adam", "weight_decay": 0.1, "param_groups": [{"pattern": "*.bias", "weight_decay": 0.0}]},
    *({"type": kind} for kind in ("nadam", "radam", "adamax", "rmsprop", "adagrad", "adadelta", "adafactor", "lion", "muon")),
]
JOBS |= {
    f"moved_by_{optimizer['type']}": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "optimizer": optimizer,
            "training": {"max_steps": 1, "batch_size": 8},
        },
    )
    for optimizer in OPTIMIZERS
}
CLASS, LABEL, NUMBER = (
    {"type": kind, "target": target}
    for kind, target in (("classification", "y"), ("multilabel", ["even"]), ("regression", ["b"]))
)
JOBS |= {
    f"minimises_{loss['type']}": (
        "labels.csv",
        {
            "task": task,
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", columns=["a", "c"]) | {"sample_weight_column": "weight"},
            "loss": loss,
            "training": {"max_steps": 1, "batch_size": 8},
        },
    )
    for loss, task in (
        ({"type": "cross_entropy", "z_loss": 0.1, "temperature": 2.0, "label_smoothing": 0.1}, CLASS),
        ({"type": "nll", "class_weights": "balanced"}, CLASS),
        ({"type": "focal", "alpha": 0.5}, CLASS),
        ({"type": "bce", "pos_weight": 2.0}, LABEL),
        ({"type": "mse", "sample_weight_normalization": "samples"}, NUMBER),
        ({"type": "mae"}, NUMBER),
        ({"type": "huber"}, NUMBER),
        ({"type": "gaussian_nll"}, NUMBER),
    )
}
SCHEDULES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "cosine", "restarts": {"t_0": {"steps": 1}}}, {"type": "sgd"}),
    ({"type": "multistep", "milestones": [{"steps": 1}]}, {"type": "sgd"}),
    ({"type": "exponential"}, {"type": "sgd"}),
    ({"type": "polynomial"}, {"type": "sgd"}),
    ({"type": "cyclic", "mode": "exp_range", "cycle_momentum": True}, {"type": "sgd", "momentum": 0.9}),
    ({"type": "one_cycle", "cycle_momentum": True}, {"type": "adam"}),
    ({"type": "plateau", "patience": 0}, {"type": "sgd"}),
]
JOBS |= {
    f"paced_by_{schedule['type']}": (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "schedule": schedule,
            "optimizer": optimizer,
            "training": {"max_steps": 3, "batch_size": 8},
            "evaluation": {"interval": {"steps": 1}},
        },
    )
    for schedule, optimizer in SCHEDULES
}
for _method in EXPLAINED:
    JOBS[_method] = (
        "rows.csv",
        {
            "task": {"type": "classification", "target": "y"},
            "model": {"type": "mlp", "hidden_sizes": [4]},
            "data": _source("csv", delimiter=";"),
            "training": {"max_steps": 1, "batch_size": 8},
            "interpretability": {"method": _method, "samples": 2},
        },
    )
TOGETHER: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp", "processes_per_node": 2},
    "fsdp": {"strategy": "fsdp", "processes_per_node": 2},
    "local_sgd": {"strategy": "local_sgd", "processes_per_node": 2},
    "pipeline": {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"degree": 2, "microbatches": 2}},
    "context": {"strategy": "ddp", "processes_per_node": 2, "context_parallel": {"degree": 2}},
    "servers": {"strategy": "parameter_server", "consistency": {"mode": "bounded_staleness"}},
    "tensor": {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}},
    "auto": {"strategy": "auto", "processes_per_node": 2},
    "halved": {"strategy": "ddp", "processes_per_node": 2, "communication_hook": {"type": "bf16"}},
    "powersgd": {"strategy": "ddp", "processes_per_node": 2, "communication_hook": {"type": "powersgd"}},
}
"""Strategies for two ranks, each with the job `char`."""


def _workspace(home: Path, kind: str, document: dict[str, Any]) -> str:
    folder = home / "data" / "set@1"
    folder.mkdir(parents=True)
    _write(folder, kind)
    facts = DatasetFacts(name="set", version=1, digest="0" * 64, bytes=1, content=CONTENTS[kind])
    spec = completed(JobSpec.model_validate_json(json.dumps(document)), facts)
    (home / "spec.json").write_text(spec.model_dump_json())
    if spec.training.distillation is not None:  # what the job before it has learned
        (home / "data" / "teacher").symlink_to(home.parent / "arrays" / "checkpoints" / "step-00000002")
    if isinstance(spec.initialization.start, Warm):
        (home / "data" / "start").symlink_to(home.parent / "tuned" / "checkpoints" / "step-00000002")
    if isinstance(spec.initialization.start, Pretrained):
        (home / "data" / "weights@1").mkdir()
        save_file({"0.weight": np.ones((4, 3), np.float32)}, home / "data" / "weights@1" / "model.safetensors")
    return str(home)


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What is read by one process that runs every job, and by two that run some jobs together."""
    root = tmp_path_factory.mktemp("spied")
    homes = [_workspace(root / name, kind, document) for name, (kind, document) in JOBS.items()]
    kind, document = JOBS["char"]
    together: list[str] = []
    for name, distributed in TOGETHER.items():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        together += [_workspace(root / name, kind, document | {"distributed": distributed}), port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    command = [sys.executable, "-c", SPY, str(root), str(len(TOGETHER)), *together, *homes]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    found: set[str] = set()
    for name in (*(f"{name}-rank{rank}" for name in TOGETHER for rank in (0, 1)), "alone"):
        assert (root / f"{name}.json").exists(), done.stdout + done.stderr
        said = json.loads((root / f"{name}.json").read_text())
        assert set(said["codes"]) == {0}, f"{said['codes']}\n{done.stdout}{done.stderr}"
        found |= set(said["reads"])
    return found


@pytest.mark.parametrize("spec", _members(), ids=lambda spec: spec.__name__)
def test_every_field_is_read_by_a_run(spec: type[Spec], reads: set[str]) -> None:
    assert unread([spec], reads) == []


def test_exceptions_are_exceptions(reads: set[str]) -> None:
    """A field that the trainer reads needs no excuse."""
    assert sorted(ELSEWHERE.keys() & reads) == []


def test_a_field_that_nothing_reads_is_reported() -> None:
    class Ignored(Spec):
        used: int = 1
        """Read."""
        warmth: float = 0.0
        """Never read."""

    assert unread([Ignored], {"Ignored.used"}) == ["Ignored.warmth"]
