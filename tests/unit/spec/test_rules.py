"""Each rule is broken once, by the smallest change to a document that breaks none, and says so at the right place."""

import inspect
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import pytest

from stoker.document.resolve import resolve
from stoker.errors import SpecError
from stoker.facts import ArrayFacts, ArrayFile, DatasetFacts, ImageFacts, TableFacts, TextFacts
from stoker.spec.job import JobSpec
from stoker.spec.rules import RULES, Rule
from tests.support.spec_cases import ARRAYS, JOBS, NUMBERS, PICTURES, TABLE, TARGET, TEXT, Json, changed, column, facts


@dataclass(frozen=True)
class Broken:
    """A document that breaks one rule."""

    job: str
    pointer: str
    changes: Json = field(default_factory=dict)
    facts: DatasetFacts | None = None
    also: tuple[str, ...] = ()
    """Rules that cannot but be broken with it."""


def table(**more: Any) -> DatasetFacts:
    columns = more.pop("columns", (column("a"), column("b"), TARGET))
    return facts(
        TableFacts(
            format=more.pop("format", "csv"), rows=more.pop("rows", 150), columns=columns, delimiter=more.pop("delimiter", ",")
        )
    )


def arrays(x: tuple[int, ...] = (150, 3, 8, 8), y: ArrayFile | None = None, dtype: str = "<f4") -> DatasetFacts:
    target = y or ArrayFile(dtype="<i8", shape=(150,), distinct=5)
    return facts(ArrayFacts(files={"x.npy": ArrayFile(dtype=dtype, shape=x), "y.npy": target}))


def stack(*layers: Json) -> Json:
    return {"model.layers": list(layers)}


CONV, FLAT, END = {"type": "conv", "channels": 8, "padding": 1}, {"type": "flatten"}, {"type": "linear", "units": 5}
NORM = {"type": "norm", "kind": "batch"}

LESSON: Json = {"teacher": {"job": "job_1", "checkpoint": 3}}

WARM: Json = {"type": "warm", "checkpoint": {"job": "job_" + "0" * 26}}
LORA: Json = {"adapter": {"type": "lora", "targets": ["*"]}}


GROWING: Json = {"mode": "schedule", "milestones": [{"after": {"steps": 2}, "batch_size": 64}]}
STAGES: Json = {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"microbatches": 2}}
SERVERS: Json = {"strategy": "parameter_server", "processes_per_node": 3, "consistency": {"mode": "async"}}
MASKED: Json = {"task": {"type": "masked_lm"}, "model.type": "transformer_encoder"}


def tasks(which: Json | None = None, where: Json | None = None, **more: Any) -> Json:
    """A job of two tasks, with changes to either and beside them."""
    first = {"type": "classification", "name": "which", "target": "t"} | (which or {})
    second = {"type": "regression", "name": "where", "target": "a"} | (where or {})
    return {"task": {"type": "multi_task", "tasks": [first, second]}} | more


BROKEN: dict[str, Broken] = {
    "proximal-needs-own-weights": Broken(
        "table",
        "/regularization/l1/proximal",
        {"regularization": {"l1": {"strength": 0.1, "proximal": True}}, "distributed": {"strategy": "parameter_server", "processes_per_node": 3}},
    ),
    "penalty-and-decay": Broken("table", "/regularization/l2", {"regularization": {"l2": {"strength": 0.1}}, "optimizer": {"type": "sgd", "weight_decay": 0.1}}),
    "gan-strategy": Broken("gan", "/distributed/strategy", {"distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "gan-without": Broken("gan", "/training/distillation", {"training.distillation": LESSON}, also=("distillation-needs-classes", "teacher-memory-unplanned")),
    "gan-precision": Broken("gan", "/precision/mode", {"precision": {"mode": "bf16_pure"}}),
    "gan-tpu": Broken("gan", "/resources/device", {"resources": {"device": "tpu"}}),
    "gan-of-text": Broken(
        "reviews", "/data/source", {"task": {"type": "gan"}, "model": {"type": "gan", "discriminator": {"type": "mlp"}}}, also=("model-fits-task",)
    ),
    "gan-preset": Broken("gan", "/model/discriminator/preset", {"model.discriminator": {"type": "cnn", "preset": "resnet18"}}),
    "generator-output": Broken("gan", "/model/generator/layers/0", {"model.generator": {"type": "layers", "layers": [END]}}),
    "discriminator-output": Broken("gan", "/model/discriminator/layers/1", {"model.discriminator": {"type": "layers", "layers": [FLAT, END]}}),
    "generator-never-learns": Broken("gan", "/task/discriminator_steps", {"task.discriminator_steps": 50, "training": {"max_steps": 20}}),
    "gradient-penalty-of-batches": Broken(
        "gan", "/model/discriminator/normalization", {"loss": {"type": "wasserstein"}, "model.discriminator": {"type": "mlp", "normalization": {"type": "batch"}}}
    ),
    "gradient-penalty-of-layers": Broken(
        "gan",
        "/model/discriminator/layers/0",
        {"loss": {"type": "wasserstein"}, "model.discriminator": {"type": "layers", "layers": [{"type": "attention"}, FLAT, {"type": "linear", "units": 1}]}},
    ),
    "gradient-penalty-in-fp16": Broken("gan", "/precision/mode", {"loss": {"type": "wasserstein"}, "precision": {"mode": "fp16_mixed"}}),
    "frechet-numbers": Broken(
        "gan",
        "/evaluation/metrics/0",
        {"evaluation": {"metrics": ["frechet_distance"]}, "model.generator": {"type": "mlp"}},
        facts=arrays((150, 3, 32, 32)),
    ),
    "slope-unbounded": Broken("gan", "/loss/gradient_penalty", {"loss": {"type": "wasserstein", "gradient_penalty": 0.0}}),
    "spectral-norm-model": Broken("text", "/regularization/spectral_norm", {"regularization": {"spectral_norm": {}}}),
    "spectral-norm-whole": Broken(
        "table", "/regularization/spectral_norm", {"regularization": {"spectral_norm": {}}, "distributed": {"strategy": "fsdp", "processes_per_node": 2}}
    ),
    "spectral-norm-average": Broken("table", "/training/ema", {"regularization": {"spectral_norm": {}}, "training.ema": {}}),
    "spectral-norm-precision": Broken("table", "/precision/mode", {"regularization": {"spectral_norm": {}}, "precision": {"mode": "bf16_pure"}}),
    "fit-needs-validation": Broken("table", "/evaluation/fit_diagnosis", {"evaluation": {"fit_diagnosis": {}}, "data.split": {"validation": 0.0}}),
    "fit-of-density": Broken(
        "table",
        "/evaluation/fit_diagnosis",
        {"task": {"type": "regression", "target": "a"}, "loss": {"type": "gaussian_nll"}, "evaluation": {"fit_diagnosis": {}}},
    ),
    "fit-of-learned-weights": Broken(
        "table",
        "/evaluation/fit_diagnosis",
        {"task": tasks()["task"] | {"weighting": {"type": "uncertainty"}}, "evaluation": {"fit_diagnosis": {}}},
    ),
    "multi-task-needs-table": Broken("pictures", "/data/source/type", tasks()),
    "multi-task-needs-last-layer": Broken(
        "table", "/model/layers/0", tasks(model={"type": "layers", "layers": [{"type": "activation", "kind": "relu"}]}), also=("layers-output",)
    ),
    "multi-task-loss": Broken("table", "/loss", tasks(loss={"type": "mse"})),
    "multi-task-sample-weights": Broken("table", "/data/sample_weight_column", tasks(**{"data.sample_weight_column": "b"}), also=("no-features",)),
    "head-loss-fits": Broken("table", "/task/tasks/0/loss/type", tasks({"loss": {"type": "mse"}})),
    "head-loss-idle": Broken("table", "/task/tasks/0/loss/chunk_tokens", tasks({"loss": {"type": "cross_entropy", "chunk_tokens": 4}})),
    "task-name-twice": Broken("table", "/task/tasks/1/name", tasks(where={"name": "which"})),
    "no-task-weighs": Broken("table", "/task/tasks", tasks({"weight": 0.0}, {"weight": 0.0})),
    "head-one-class": Broken("table", "/task/tasks/0/target", tasks(), table(columns=(column("a"), column("b"), column("t", "integer", distinct=1)))),
    "head-classes-uncounted": Broken(
        "table", "/task/tasks/0/target", tasks(), table(columns=(column("a"), column("b"), column("t", "integer", distinct=None)))
    ),
    "head-too-few-classes": Broken("table", "/task/tasks/0/num_classes", tasks({"num_classes": 2})),
    "head-unseen-classes": Broken("table", "/task/tasks/0/num_classes", tasks({"num_classes": 4})),
    "head-outputs-differ": Broken("table", "/task/tasks/1/num_outputs", tasks(where={"num_outputs": 2})),
    "head-class-weights": Broken(
        "table", "/task/tasks/0/loss/class_weights", tasks({"loss": {"type": "cross_entropy", "class_weights": [1.0, 2.0]}})
    ),
    "head-top-k": Broken(
        "table", "/evaluation/metrics/0/top_k", tasks(evaluation={"metrics": [{"type": "accuracy", "top_k": 4}]})
    ),
    "labels-need-columns": Broken("pictures", "/data/source/type", {"task": {"type": "multilabel", "num_labels": 2}}, also=("split-fits",)),
    "labels-not-binary": Broken("table", "/task/target", {"task": {"type": "multilabel", "target": "t"}}),
    "labels-top-k": Broken("table", "/evaluation/metrics/0/top_k", {"task": {"type": "multilabel", "target": "a"}, "evaluation": {"metrics": [{"type": "accuracy", "top_k": 2}]}}),
    "loss-factors-length": Broken("table", "/loss/alpha", {"loss": {"type": "focal", "alpha": [1.0, 2.0]}}),
    "focal-alpha-of-labels": Broken("table", "/loss/alpha", {"task": {"type": "multilabel", "target": "a"}, "loss": {"type": "focal", "alpha": 2.0}}),
    "focal-alpha-zero": Broken("table", "/loss/alpha", {"loss": {"type": "focal", "alpha": 0.0}}),
    "chunk-tokens-need-decoder": Broken("table", "/loss/chunk_tokens", {"loss": {"type": "cross_entropy", "chunk_tokens": 8}}),
    "chunk-tokens-need-whole-heads": Broken("text", "/loss/chunk_tokens", {"loss": {"type": "cross_entropy", "chunk_tokens": 8}, "distributed": {"strategy": "ddp", "processes_per_node": 2, "context_parallel": {"degree": 2}}}),
    "chunk-tokens-without-teacher": Broken("text", "/loss/chunk_tokens", {"loss": {"type": "cross_entropy", "chunk_tokens": 8}, "training.distillation": LESSON}, also=("teacher-memory-unplanned",)),
    "distillation-needs-cross-entropy": Broken("table", "/loss/type", {"loss": {"type": "nll"}, "training.distillation": LESSON}, also=("teacher-memory-unplanned",)),
    "sample-weights-need-tables": Broken("numbers", "/data/sample_weight_column", {"data.sample_weight_column": "a"}),
    "sample-weights-without-teacher": Broken("table", "/data/sample_weight_column", {"data.sample_weight_column": "b", "training.distillation": LESSON}, also=("teacher-memory-unplanned",)),
    "sample-weights-negative": Broken("table", "/data/sample_weight_column", {"data.sample_weight_column": "b"}, table(columns=(column("a"), column("b", counts={"-1.5": 20, "2": 130}), TARGET))),
    "sample-weight-normalization-unused": Broken("table", "/loss/sample_weight_normalization", {"loss": {"type": "cross_entropy", "sample_weight_normalization": "samples"}}),
    "one-beginning": Broken("table", "/initialization/start", {"initialization": {"start": WARM}, "checkpoint.resume_from": {"job": "job_" + "1" * 26}}),
    "names-of-transformers": Broken("table", "/initialization/start/names", {"initialization": {"start": {"type": "pretrained", "source": "w", "names": "huggingface"}}}),
    "finetune-strategy": Broken("table", "/distributed/strategy", {"initialization": {"start": WARM, "finetune": {"freeze": ["0.*"]}}, "distributed": {"strategy": "local_sgd", "sync_every": 2}}),
    "adapter-freezes": Broken("table", "/initialization/finetune/freeze", {"initialization": {"start": WARM, "finetune": {**LORA, "freeze": ["0.*"]}}}),
    "adapter-shares": Broken(
        "text",
        "/initialization/finetune/adapter",
        {"initialization": {"start": WARM, "finetune": LORA}, "model.sharing": [{"source": "blocks.0", "target": "blocks.1"}]},
    ),
    "unfreeze-in-seconds": Broken("table", "/initialization/finetune/unfreeze_at/0/at/seconds", {"initialization": {"start": WARM, "finetune": {"unfreeze_at": [{"pattern": "0.*", "at": {"seconds": 5.0}}]}}}),
    "finetune-from-nothing": Broken("table", "/initialization/finetune", {"initialization": {"finetune": LORA}}),
    "finetune-one-task": Broken("table", "/initialization/finetune", tasks(initialization={"start": WARM, "finetune": {"freeze": ["0.*"]}})),
    "probes-need-whole-model": Broken("table", "/debug/probes", {"debug.probes": [{"module": "0"}], "distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "interpretability-needs-whole-model": Broken("table", "/interpretability", {"interpretability": {"split": "train"}, "distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "interpretability-text": Broken("text", "/interpretability/method", {"interpretability": {"method": "saliency", "split": "train"}}),
    "interpretability-of-gaps": Broken("text", "/interpretability", MASKED | {"interpretability": {"split": "train"}}),
    "interpretability-split": Broken("table", "/interpretability/split", {"interpretability": {"split": "test"}, "data.split": {"test": 0.0}}),
    "interpretability-targets": Broken("table", "/interpretability/targets", {"interpretability": {"split": "train", "targets": [7]}}),
    "interpretability-idle": Broken("table", "/interpretability/baseline", {"interpretability": {"split": "train", "method": "saliency", "baseline": "mean"}}),
    "interpretability-model": Broken("table", "/interpretability/method", {"interpretability": {"split": "train", "method": "layer_grad_cam"}}),
    "occlusion-stride": Broken("table", "/interpretability/method/stride", {"interpretability": {"split": "train", "method": {"type": "occlusion", "stride": 4}}}),
    "sink-twice": Broken("table", "/logging/sinks/1", {"logging.sinks": ["jsonl", "jsonl"]}),
    "gradients-elsewhere": Broken("table", "/debug/gradients", {"debug.gradients": {}, "distributed": {"strategy": "parameter_server"}}),
    "probe-twice": Broken("table", "/debug/probes/1", {"debug.probes": [{"module": "0"}, {"module": "0", "what": "output"}]}),
    "histograms-of-nothing": Broken("table", "/debug/histograms", {"debug.histograms": {"weights": False, "gradients": False}}),
    "profiler-after-end": Broken("table", "/debug/profiler", {"debug.profiler": {"start_step": 100_000}}),
    "model-fits-task": Broken("table", "/model/type", {"model": {"type": "transformer_decoder"}}),
    "heads-divide": Broken("text", "/model/num_heads", {"model.num_heads": 5}),
    "kv-heads-divide": Broken("text", "/model/num_kv_heads", {"model.num_kv_heads": 3}),
    "rope-dim": Broken("text", "/model/position/dim", {"model.position": {"type": "rope", "dim": 10}}),
    "sinusoidal-width": Broken("text", "/model/hidden_size", {"model.hidden_size": 33, "model.num_heads": 3, "model.position": {"type": "sinusoidal"}}),
    "high-dropout": Broken("table", "/model/dropout", {"model.dropout": 0.6}),
    "residual-scaling-needs-residuals": Broken("table", "/model/init/residual_scaling", {"model.init": {"type": "normal", "residual_scaling": "depth"}}),
    "recurrent-needs-sequence": Broken("table", "/model/type", {"model": {"type": "gru"}}),
    "bidirectional-sees-ahead": Broken("text", "/model/bidirectional", {"model": {"type": "gru", "bidirectional": True}}),
    "embedding-needs-text": Broken("numbers", "/model/embedding_size", {"model": {"type": "gru", "embedding_size": 8}}),
    "tied-width": Broken("text", "/model/embedding_size", {"model": {"type": "gru", "tie_embeddings": True, "embedding_size": 8}}),
    "recurrent-dropout-unused": Broken("text", "/model/dropout", {"model": {"type": "gru", "dropout": 0.1}}),
    "projection-too-wide": Broken("text", "/model/proj_size", {"model": {"type": "lstm", "hidden_size": 8, "proj_size": 8}}),
    "forget-bias-needs-bias": Broken("text", "/model/forget_bias", {"model": {"type": "lstm", "bias": False, "forget_bias": 1.0}}),
    "tbptt-needs-memory": Broken("text", "/training/tbptt", {"training.tbptt": {"steps": 4}}),
    "tbptt-longer-than-samples": Broken("text", "/training/tbptt/steps", {"model": {"type": "gru"}, "training.tbptt": {"steps": 17}}),
    "tbptt-stride": Broken("text", "/training/tbptt/stride", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stride": 3}}),
    "tbptt-stride-unused": Broken("numbers", "/training/tbptt/stride", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stride": 4}}),
    "streams-shuffled": Broken("text", "/data/loader/shuffle", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stateful": True}, "data.loader": {"drop_last": True}}),
    "streams-split": Broken("numbers", "/data/split/strategy", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stateful": True}, "data.loader": {"shuffle": False, "drop_last": True}}),
    "streams-uneven": Broken("text", "/data/loader/drop_last", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stateful": True}, "data.loader": {"shuffle": False}}),
    "distillation-needs-classes": Broken("numbers", "/training/distillation", {"training.distillation": LESSON}, None, ("teacher-memory-unplanned",)),
    "distillation-in-windows": Broken("text", "/training/tbptt", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8}, "training.distillation": LESSON}, None, ("teacher-memory-unplanned",)),
    "distillation-needs-whole-samples": Broken("text", "/distributed/tensor_parallel", {"training.distillation": LESSON, "distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2}}}, None, ("teacher-memory-unplanned",)),
    "distillation-teaches-nothing": Broken("table", "/training/distillation/alpha", {"training.distillation": LESSON | {"alpha": 0.0}}, None, ("teacher-memory-unplanned",)),
    "teacher-memory-unplanned": Broken("table", "/training/distillation/teacher", {"training.distillation": LESSON}),
    "layer-idle": Broken("stack", "/model/layers/1/momentum", stack(CONV, {"type": "norm", "kind": "layer", "momentum": 0.1}, FLAT, END)),
    "norm-sync": Broken("stack", "/model/layers/1/sync", stack(CONV, {**NORM, "sync": True}, FLAT, END)),
    "norm-untracked": Broken("stack", "/model/layers/1/track_running_stats", stack(CONV, {**NORM, "track_running_stats": False}, FLAT, END)),
    "layer-sees-ahead": Broken("text", "/model/layers/1/causal", {"model": {"type": "layers", "layers": [{"type": "embedding", "size": 4}, {"type": "attention"}, {"type": "linear", "units": 256}]}}),
    "sharing-whole-weights": Broken("table", "/model/sharing", {"model": {"type": "mlp", "hidden_sizes": [4, 4, 4], "sharing": [{"source": "2", "target": "4"}]}, "distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "sharing-itself": Broken("table", "/model/sharing/0", {"model": {"type": "mlp", "sharing": [{"source": "0", "target": "0.weight"}]}}),
    "sharing-export": Broken("text", "/checkpoint/export", {"checkpoint": {"export": ["huggingface"]}, "model.sharing": [{"source": "blocks.0", "target": "blocks.1"}]}),
    "layer-norm-groups": Broken("stack", "/model/layers/1/groups", stack(CONV, {"type": "norm", "kind": "group", "groups": 3}, FLAT, END)),
    "layer-padding": Broken("stack", "/model/layers/1/padding", stack(CONV, {"type": "pool", "padding": 2}, FLAT, END)),
    "layer-same-stride": Broken("stack", "/model/layers/0/padding", stack({"type": "conv", "channels": 8, "padding": "same", "stride": 2}, FLAT, END)),
    "layer-order": Broken("stack", "/model/layers/1", stack(CONV, {"type": "rnn", "units": 4}, END), arrays((150, 3, 8))),
    "layer-sequence": Broken("stack", "/model/layers/1", stack(FLAT, {"type": "rnn", "units": 4}, END)),
    "layer-heads": Broken("stack", "/model/layers/1/num_heads", stack(CONV, {"type": "attention", "num_heads": 3}, FLAT, END)),
    "layer-size": Broken("stack", "/model/layers/0/shape", stack({"type": "reshape", "shape": [5, 5]}, FLAT, END)),
    "layer-tokens": Broken("text", "/model/layers/0", {"model": {"type": "layers", "layers": [{"type": "linear", "units": 4}]}}),
    "layer-embedding": Broken("stack", "/model/layers/0", stack({"type": "embedding", "size": 4}, FLAT, END)),
    "cnn-input": Broken("table", "/model/input_shape", {"model": {"type": "cnn"}}),
    "layer-dimensions": Broken("stack", "/model/layers/1", stack(FLAT, CONV, FLAT, END)),
    "layer-groups": Broken("stack", "/model/layers/0/groups", stack({**CONV, "groups": 2}, FLAT, END)),
    "layer-numbers": Broken("stack", "/model/layers/0/kernel_size", stack({"type": "conv", "channels": 8, "kernel_size": [3, 3]}, FLAT, END), arrays((150, 3, 8))),
    "layer-window": Broken("stack", "/model/layers/1", stack(CONV, {"type": "pool", "kernel_size": 9}, FLAT, END)),
    "residual-shape": Broken("stack", "/model/layers/0", stack({"type": "residual", "layers": [CONV]}, FLAT, END)),
    "layers-output": Broken("stack", "/model/layers/1", stack(FLAT, {"type": "linear", "units": 4})),
    "dataset-mismatch": Broken("table", "/data/source/dataset", {"data.source.dataset": "d@2"}),
    "source-fits-task": Broken("table", "/data/source/type", {"data.source": {"type": "text", "dataset": "d"}, "task": {"type": "classification", "num_classes": 2}}, TEXT, ("split-fits",)),
    "text-beside-numbers": Broken("reviews", "/data/source/columns", {"data.source.columns": ["stars"]}),
    "text-column-kind": Broken("reviews", "/data/source/text", {"data.source.text": "stars"}),
    "text-characters": Broken("reviews", "/data/tokenizer", {"data.tokenizer": {"type": "char"}}),
    "token-beyond-vocabulary": Broken("reviews", "/data/tokenizer/pad_id", {"data.tokenizer": {"type": "file", "source": "gpt@1", "vocab_size": 9, "pad_id": 9}}),
    "text-needs-reader": Broken("reviews", "/model/type", {"model": {"type": "mlp"}}),
    "text-one-task": Broken("reviews", "/task/type", {"task": {"type": "multi_task", "tasks": [{"type": "classification", "name": "x", "target": "t"}, {"type": "regression", "name": "y", "target": "stars"}]}}, also=("multi-task-needs-last-layer",)),
    "padding-is-seen": Broken("reviews", "/model/bidirectional", {"model": {"type": "lstm", "bidirectional": True}}),
    "text-ties-nothing": Broken("reviews", "/model/tie_embeddings", {"model": {"type": "gru", "tie_embeddings": True}}),
    "text-in-windows": Broken("reviews", "/training/tbptt", {"model": {"type": "gru"}, "training.tbptt": {"steps": 4}}),
    "text-unexplained": Broken("reviews", "/interpretability", {"interpretability": {"method": {"type": "integrated_gradients"}, "split": "validation"}}),
    "content-fits-source": Broken("table", "/data/source/type", {}, table(format="parquet")),
    "tokenizer-needs-text": Broken("table", "/data/tokenizer", {"data.tokenizer": {"type": "byte"}}),
    "normalization-needs-numbers": Broken("text", "/data/normalization", {"data.normalization": {"type": "standard"}}),
    "split-fits": Broken("regression", "/data/split/strategy", {"data.split": {"strategy": "stratified"}}),
    "target-missing": Broken("table", "/task/target", {"task": {"type": "classification", "num_classes": 3}}),
    "target-unused": Broken("pictures", "/task/target", {"task.target": "t"}),
    "column-twice": Broken("table", "/data/source/columns/1", {"data.source.columns": ["a", "t"]}),
    "no-features": Broken("table", "/data/source/columns", {}, table(columns=(TARGET,))),
    "column-missing": Broken("table", "/data/source/columns/0", {"data.source.columns": ["aa"]}),
    "column-not-numeric": Broken("table", "/data/source/columns/0", {}, table(columns=(column("a", "string"), TARGET))),
    "column-has-gaps": Broken("table", "/data/source/columns/0", {}, table(columns=(column("a", nulls=7), TARGET))),
    "delimiter-differs": Broken("table", "/data/source/delimiter", {}, table(delimiter=";")),
    "one-class": Broken("table", "/task/target", {}, table(columns=(column("a"), column("t", "integer", distinct=1, counts={"0": 150})))),
    "classes-uncounted": Broken("table", "/task/target", {}, table(columns=(column("a"), column("t", "integer", distinct=None)))),
    "too-few-classes": Broken("table", "/task/num_classes", {"task.num_classes": 2}),
    "unseen-classes": Broken("table", "/task/num_classes", {"task.num_classes": 4}),
    "rare-class": Broken("table", "/data/split/strategy", {}, table(columns=(column("a"), column("t", "integer", distinct=2, counts={"0": 149, "1": 1})))),
    "outputs-differ": Broken("numbers", "/task/num_outputs", {"task.num_outputs": 3}),
    "nothing-left": Broken("table", "/data/split", {"data.split": {"validation": 0.5, "test": 0.5}}, None, ()),
    "part-empty": Broken("numbers", "/data/split/test", {"data.split": {"test": 0.001}}),
    "text-too-short": Broken("text", "/data/sequence/length", {"data.split": {"validation": 0}}, facts(TextFacts(bytes=16, characters=16, distinct_characters=5))),
    "drop-last-drops-all": Broken("table", "/data/loader/drop_last", {"data.loader": {"drop_last": True}, "training.batch_size": 200}, None, ("batch-larger-than-data",)),
    "array-missing": Broken("numbers", "/data/source/inputs", {"data.source.inputs": "z.npy"}),
    "array-lengths": Broken("numbers", "/data/source", {}, arrays((149, 8), ArrayFile(dtype="<f4", shape=(150,)))),
    "array-form": Broken("numbers", "/data/source/inputs", {}, arrays((150, 8), ArrayFile(dtype="<f4", shape=(150,)), dtype="<c8")),
    "image-size-unknown": Broken("pictures", "/data/source/height", {"data.source.width": 8}, facts(ImageFacts(counts={"a": 80, "b": 70}, height=None, width=None))),
    "loss-fits-task": Broken("table", "/loss/type", {"loss": {"type": "mse"}}),
    "metric-fits-task": Broken("table", "/evaluation/metrics/1", {"evaluation": {"metrics": ["f1", "rmse"]}}),
    "metric-twice": Broken("table", "/evaluation/metrics/1", {"evaluation": {"metrics": ["f1", {"type": "f1", "average": "macro"}]}}),
    "monitor-not-logged": Broken("table", "/checkpoint/monitor", {"checkpoint": {"monitor": "validation/f1"}}),
    "monitor-mode": Broken("table", "/checkpoint/mode", {"checkpoint": {"monitor": "validation/accuracy", "mode": "min"}}),
    "early-stopping-needs-validation": Broken("table", "/training/early_stopping", {"training.early_stopping": {"patience": 1}, "data.split": {"validation": 0}}),
    "keep-best-needs-validation": Broken("table", "/checkpoint/keep_best", {"checkpoint": {"keep_best": 1}, "data.split": {"validation": 0}}),
    "evaluation-batches-unused": Broken("table", "/evaluation/batches", {"evaluation": {"batches": 2}, "data.split": {"validation": 0}}),
    "class-weights-need-classes": Broken("text", "/loss/class_weights", {"loss": {"type": "cross_entropy", "class_weights": "balanced"}}),
    "class-weights-length": Broken("table", "/loss/class_weights", {"loss": {"type": "cross_entropy", "class_weights": [1, 2]}}),
    "class-weights-zero": Broken("table", "/loss/class_weights", {"loss": {"type": "cross_entropy", "class_weights": [0, 0, 0]}}),
    "top-k-beyond-classes": Broken("table", "/evaluation/metrics/0/top_k", {"evaluation": {"metrics": [{"type": "accuracy", "top_k": 4}]}}),
    "nesterov-needs-momentum": Broken("table", "/optimizer/nesterov", {"optimizer": {"type": "sgd", "nesterov": True}}),
    "dampening-needs-momentum": Broken("table", "/optimizer/dampening", {"optimizer": {"type": "sgd", "dampening": 0.1}}),
    "no-training-length": Broken("table", "/training", {"training": {}}),
    "many-training-lengths": Broken("table", "/training/max_steps", {"training.max_steps": 3}),
    "tokens-need-text": Broken("table", "/evaluation/interval/tokens", {"evaluation": {"interval": {"tokens": 100}}}),
    "warmup-twice": Broken("table", "/schedule/warmup_ratio", {"schedule": {"type": "constant", "warmup_steps": 1, "warmup_ratio": 0.1}}),
    "warmup-beyond-end": Broken("table", "/schedule/warmup_steps", {"schedule": {"type": "constant", "warmup_steps": 26}}),
    "schedule-needs-steps": Broken("table", "/schedule/type", {"schedule": {"type": "cosine"}, "training": {"max_seconds": 60}}),
    "step-size-unit": Broken("table", "/schedule/step_size", {"schedule": {"type": "step", "step_size": {"seconds": 1}}}),
    "step-beyond-end": Broken("table", "/schedule/step_size", {"schedule": {"type": "step", "step_size": {"epochs": 5}}}),
    "min-lr-above-lr": Broken("table", "/schedule/min_lr", {"schedule": {"type": "cosine", "min_lr": 1.0}}),
    "early-stopping-too-late": Broken("table", "/training/early_stopping/patience", {"training.early_stopping": {"patience": 5}}),
    "time-limit-too-short": Broken("table", "/resources/time_limit_seconds", {"training": {"max_seconds": 100}, "resources": {"time_limit_seconds": 60}}),
    "batch-indivisible": Broken("table", "/training/batch_size", {"training.batch_size": 33, "distributed": {"strategy": "ddp"}}),
    "batch-larger-than-data": Broken("table", "/training/batch_size", {"training.batch_size": 200}),
    "batch-norm-alone": Broken("table", "/model/normalization", {"model.normalization": {"type": "batch"}, "training.batch_size": 1}),
    "batch-norm-last-batch": Broken("table", "/model/normalization", {"model.normalization": {"type": "batch"}, "training.batch_size": 67}),
    "batch-norm-accumulation": Broken("table", "/model/normalization", {"model.normalization": {"type": "batch"}, "training.gradient_accumulation_steps": 2}),
    "pin-memory-needs-gpu": Broken("table", "/data/loader/pin_memory", {"data.loader": {"pin_memory": True}, "resources": {"device": "cpu"}}),
    "cpus-for-ranks": Broken("table", "/resources/cpus", {"distributed": {"strategy": "ddp"}, "resources": {"cpus": 1}}),
    "cpus-uneven": Broken("table", "/resources/cpus", {"distributed": {"strategy": "ddp"}, "resources": {"cpus": 3}}),
    "horovod-on-cpu": Broken("table", "/resources/device", {"distributed": {"strategy": "horovod"}, "resources": {"device": "cuda"}}),
    "tpu-one-process": Broken("table", "/distributed/strategy", {"distributed": {"strategy": "ddp"}, "resources": {"device": "tpu"}}),
    "tpu-cannot": Broken("table", "/debug/profiler", {"resources": {"device": "tpu"}, "debug": {"profiler": {"start_step": 1, "active_steps": 1}}}),
    "horovod-formats": Broken("table", "/precision/mode", {"distributed": {"strategy": "horovod"}, "precision": {"mode": "bf16_pure"}}),
    "local-sgd-averages": Broken("table", "/training/ema", {"distributed": {"strategy": "local_sgd", "sync_every": 2}, "training.ema": {}}),
    "local-sgd-never-averaged": Broken("table", "/distributed/sync_every", {"distributed": {"strategy": "local_sgd", "sync_every": 99}}),
    "fp8-not-built": Broken("table", "/precision/mode", {"precision": {"mode": "fp8"}}),
    "tf32-needs-gpu": Broken("table", "/precision/mode", {"precision": {"mode": "tf32"}}),
    "loss-scale-needs-fp16": Broken("table", "/precision/loss_scale", {"precision": {"mode": "bf16_mixed", "loss_scale": {"mode": "dynamic"}}}),
    "fp16-on-cpu": Broken("table", "/precision/mode", {"precision": {"mode": "fp16_mixed"}, "resources": {"device": "cpu"}}),
    "fp16-moments": Broken("table", "/optimizer/eps", {"precision": {"mode": "fp16_pure"}}),
    "context-degree-divides-ranks": Broken("text", "/distributed/context_parallel/degree", {"distributed": {"strategy": "ddp", "processes_per_node": 4, "context_parallel": {"degree": 3}}, "data.sequence": {"length": 18}}),
    "context-crosses-nodes": Broken("text", "/distributed/context_parallel/degree", {"distributed": {"strategy": "ddp", "nodes": 4, "processes_per_node": 1, "context_parallel": {}}}),
    "context-parallel-fits-model": Broken("table", "/distributed/context_parallel", {"distributed": {"strategy": "ddp", "context_parallel": {}}}),
    "context-parallel-length": Broken("text", "/data/sequence/length", {"distributed": {"strategy": "ddp", "context_parallel": {}}, "data.sequence": {"length": 18}}),
    "context-parallel-alone": Broken("text", "/distributed/context_parallel", {"distributed": {"strategy": "ddp", "processes_per_node": 4, "context_parallel": {}, "tensor_parallel": {}}}),
    "attack-needs-numbers": Broken("text", "/training/adversarial", {"training.adversarial": {"method": "fgsm"}}),
    "attack-needs-whole-model": Broken("table", "/training/adversarial", {"training.adversarial": {"method": "fgsm"}, "distributed": {"strategy": "fsdp"}}),
    "attack-in-windows": Broken("numbers", "/training/adversarial", {"model": {"type": "gru"}, "training.tbptt": {"steps": 2}, "training.adversarial": {"method": "fgsm"}}, arrays((150, 8, 4), ArrayFile(dtype="<f4", shape=(150, 2)))),
    "attack-range": Broken("table", "/training/adversarial/clip/low", {"training.adversarial": {"method": "fgsm", "clip": {"low": 1.0, "high": 1.0}}}),
    "attack-carried": Broken("table", "/training/adversarial/method", {"training.adversarial": {"method": "free"}, "training.dynamic_batch": {"mode": "fit_memory"}}),
    "attack-mixes-statistics": Broken("table", "/model/normalization", {"model.normalization": {"type": "batch"}, "training.adversarial": {"method": "fgsm"}, "data.loader": {"drop_last": True}}),
    "attack-out-of-reach": Broken("table", "/training/adversarial/step_size", {"training.adversarial": {"method": "pgd", "epsilon": 1.0, "step_size": 0.1}}),
    "recomputation-needs-blocks": Broken("table", "/activation_checkpointing/type", {"activation_checkpointing": {"type": "full"}}),
    "recomputation-beyond-blocks": Broken("text", "/activation_checkpointing/every", {"activation_checkpointing": {"type": "selective", "every": 9}}),
    "adafactor-in-parts": Broken("table", "/optimizer/type", {"optimizer": {"type": "adafactor"}, "distributed": {"strategy": "fsdp", "processes_per_node": 2}}),
    "muon-in-the-host": Broken("table", "/distributed/offload", {"optimizer": {"type": "muon"}, "distributed": {"strategy": "fsdp", "processes_per_node": 2, "offload": "parameters"}, "resources": {"device": "cuda"}}),
    "adafactor-in-fp16": Broken("table", "/precision/mode", {"optimizer": {"type": "adafactor"}, "precision": {"mode": "fp16_pure"}, "resources": {"device": "cuda"}}),
    "plateau-needs-validation": Broken("table", "/schedule/type", {"schedule": {"type": "plateau", "patience": 0}, "data.split": {"validation": 0}}),
    "plateau-too-late": Broken("table", "/schedule/patience", {"schedule": {"type": "plateau"}}),
    "schedule-milestones": Broken("table", "/schedule/milestones/1", {"schedule": {"type": "multistep", "milestones": [{"epochs": 2}, {"steps": 3}]}}),
    "schedule-never-turns": Broken("table", "/schedule/restarts/t_0", {"schedule": {"type": "cosine", "restarts": {"t_0": {"epochs": 5}}}}),
    "cycle-upside-down": Broken("table", "/schedule/base_lr", {"schedule": {"type": "cyclic", "base_lr": 0.1, "max_lr": 0.01}}),
    "two-peaks": Broken("table", "/schedule/max_lr", {"optimizer": {"type": "sgd", "lr": 0.2}, "schedule": {"type": "cyclic", "max_lr": 0.3}}),
    "cycle-needs-momentum": Broken("table", "/schedule/cycle_momentum", {"optimizer": {"type": "adagrad"}, "schedule": {"type": "cyclic", "cycle_momentum": True}}),
    "cycled-momentum-is-off": Broken("table", "/schedule/cycle_momentum", {"optimizer": {"type": "sgd"}, "schedule": {"type": "one_cycle", "cycle_momentum": True}}),
    "three-phases-fit": Broken("table", "/schedule/pct_start", {"schedule": {"type": "one_cycle", "three_phase": True, "pct_start": 0.5}}),
    "decay-twice": Broken("table", "/schedule/decay_ratio", {"schedule": {"type": "wsd", "decay_steps": 3, "decay_ratio": 0.1}}),
    "decay-beyond-end": Broken("table", "/schedule/decay_ratio", {"schedule": {"type": "wsd", "warmup_steps": 10, "decay_ratio": 0.9}}),
    "one-average": Broken("table", "/training/swa", {"training": {"epochs": 5, "ema": {}, "swa": {"start": {"epochs": 2}}}}),
    "average-in-seconds": Broken("table", "/training/ema/start/seconds", {"training": {"epochs": 5, "ema": {"start": {"seconds": 3}}}}),
    "average-never-begins": Broken("table", "/training/swa/start", {"training": {"epochs": 5, "swa": {"start": {"epochs": 6}}}}),
    "huggingface-decoders": Broken("table", "/checkpoint/export", {"checkpoint": {"export": ["huggingface"]}}),
    "huggingface-architecture": Broken("text", "/checkpoint/export", {"checkpoint": {"export": ["huggingface"]}, "model.gated_ffn": True}),
    "on-exception-one-process": Broken("table", "/checkpoint/on_exception", {"checkpoint": {"on_exception": True}, "distributed": {"strategy": "ddp"}}),
    "fork-needs-host-memory": Broken("table", "/checkpoint/background", {"checkpoint": {"background": "fork"}, "resources": {"device": "cuda"}}),
    "stages-divide-ranks": Broken("text", "/distributed/pipeline_parallel/degree", {"distributed": {"strategy": "ddp", "processes_per_node": 3, "pipeline_parallel": {}}, "model.tie_embeddings": False}),
    "stages-fit-model": Broken("table", "/distributed/pipeline_parallel", {"distributed": {"strategy": "ddp", "pipeline_parallel": {}}}),
    "stages-tied-embeddings": Broken("text", "/model/tie_embeddings", {"distributed": {"strategy": "ddp", "pipeline_parallel": {}}}),
    "stages-more-than-layers": Broken("text", "/model/num_layers", {"distributed": {"strategy": "ddp", "processes_per_node": 4, "pipeline_parallel": {"degree": 4}}, "model.tie_embeddings": False}),
    "pipeline-microbatches": Broken("text", "/distributed/pipeline_parallel/microbatches", {"distributed": {"strategy": "ddp", "pipeline_parallel": {"microbatches": 1}}, "model.tie_embeddings": False}),
    "pipeline-interleaving": Broken("text", "/distributed/pipeline_parallel/microbatches", {"distributed": {"strategy": "ddp", "pipeline_parallel": {"schedule": "interleaved_1f1b", "microbatches": 5}}, "model.tie_embeddings": False, "model.num_layers": 4, "training.batch_size": 40}),
    "pipeline-pieces": Broken("text", "/training/micro_batch_size", {"distributed": {"strategy": "ddp", "pipeline_parallel": {}}, "model.tie_embeddings": False, "training.batch_size": 30}),
    "pipeline-alone": Broken("text", "/distributed/context_parallel", {"distributed": {"strategy": "ddp", "processes_per_node": 4, "pipeline_parallel": {}, "context_parallel": {}}, "model.tie_embeddings": False}),
    "servers-without-workers": Broken("table", "/distributed/servers", {"distributed": {"strategy": "parameter_server", "servers": 2}}),
    "servers-on-one-node": Broken("table", "/distributed/nodes", {"distributed": {"strategy": "parameter_server", "nodes": 3, "processes_per_node": 1}}),
    "servers-out-of-step": Broken("table", "/distributed/consistency", {"distributed": {"strategy": "parameter_server", "consistency": {"mode": "async"}}}),
    "servers-agreement": Broken("table", "/debug/spike", {"distributed": {"strategy": "parameter_server", "consistency": {"mode": "async"}}, "debug": {"spike": {}}}, None, ("servers-out-of-step", "spike-window-too-long")),
    "position-table": Broken("text", "/model/position/max_length", {"model.position": {"type": "learned", "max_length": 4}}),
    "ntk-dimensions": Broken("text", "/model/position/scaling", {"model.position": {"type": "rope", "dim": 2, "scaling": {"type": "ntk"}}}),
    "mask-shares": Broken("text", "/task/masked_share", MASKED | {"task": {"type": "masked_lm", "random_share": 0.3}}),
    "encoder-inputs": Broken("table", "/model/type", {"model": {"type": "transformer_encoder"}}),
    "encoder-head": Broken("text", "/model/pooler", MASKED | {"model.pooler": True}),
    "embedding-of-numbers": Broken("stack", "/model/embedding_size", {"model": {"type": "transformer_encoder", "embedding_size": 8}, "task.num_classes": 5}, arrays((150, 6, 4))),
    "batch-norm-sees-ahead": Broken("text", "/model/normalization", {"model.normalization": {"type": "batch"}}),
    "batch-norm-computed-twice": Broken("text", "/activation_checkpointing/type", MASKED | {"model.normalization": {"type": "batch"}, "activation_checkpointing": {"type": "full"}}),
    "transformer-cut": Broken("text", "/model/window", {"model.window": 3, "distributed": {"strategy": "ddp", "context_parallel": {}}}),
    "context-parallel-teacher": Broken("text", "/training/distillation", {"training.distillation": LESSON, "distributed": {"strategy": "ddp", "context_parallel": {}}}, None, ("teacher-memory-unplanned",)),
    "ddp-one-rank": Broken("table", "/distributed/processes_per_node", {"distributed": {"strategy": "ddp", "processes_per_node": 1}}),
    "rollback-of-shards": Broken("table", "/debug/nan_policy", {"debug": {"nan_policy": {"type": "rollback"}}, "distributed": {"strategy": "fsdp", "nodes": 2}}),
    "gpu-memory-fraction-needs-gpu": Broken("table", "/resources/gpu_memory_fraction", {"resources": {"device": "auto", "gpu_memory_fraction": 0.5}}),
    "min-nodes-above-nodes": Broken("table", "/distributed/min_nodes", {"distributed": {"strategy": "ddp", "nodes": 2, "min_nodes": 3}}),
    "min-nodes-groups": Broken("table", "/distributed/min_nodes", {"distributed": {"strategy": "fsdp", "nodes": 4, "min_nodes": 3, "processes_per_node": 1, "replicate": 2}, "training.batch_size": 48}, also=("min-nodes-uneven",)),
    "min-nodes-uneven": Broken("table", "/distributed/min_nodes", {"distributed": {"strategy": "ddp", "nodes": 4, "min_nodes": 3, "processes_per_node": 1}, "training.batch_size": 32}),
    "fsdp-replicas-divide": Broken("table", "/distributed/replicate", {"distributed": {"strategy": "fsdp", "processes_per_node": 4, "replicate": 3}}),
    "offload-needs-gpu": Broken("table", "/distributed/offload", {"distributed": {"strategy": "fsdp", "offload": "parameters"}, "resources": {"device": "auto"}}),
    "offload-whole-layers": Broken("text", "/distributed/tensor_parallel", {"distributed": {"strategy": "fsdp", "processes_per_node": 4, "offload": "parameters", "tensor_parallel": {"degree": 2}}, "resources": {"device": "cuda"}}),
    "offload-kept-on-gpu": Broken("table", "/distributed/reshard_after_forward", {"distributed": {"strategy": "fsdp", "offload": "parameters", "reshard_after_forward": False}, "resources": {"device": "cuda"}}),
    "fsdp-one-shard": Broken("table", "/distributed/replicate", {"distributed": {"strategy": "fsdp", "replicate": 2}}),
    "tensor-degree-divides-ranks": Broken("text", "/distributed/tensor_parallel/degree", {"distributed": {"strategy": "fsdp", "processes_per_node": 5, "tensor_parallel": {"degree": 2}}}),
    "tensor-crosses-nodes": Broken("text", "/distributed/tensor_parallel/degree", {"distributed": {"strategy": "ddp", "nodes": 2, "processes_per_node": 1, "tensor_parallel": {"degree": 2}}}),
    "tensor-parallel-fits-model": Broken("table", "/distributed/tensor_parallel", {"distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2}}}),
    "tensor-degree-divides-layers": Broken("text", "/model/ffn_size", {"model.ffn_size": 33, "distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2}}}),
    "sequence-parallel-length": Broken("text", "/data/sequence/length", {"data.sequence": {"length": 15}, "distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2, "sequence_parallel": True}}}),
    "tensor-parallel-dropout": Broken("text", "/model/attention_dropout", {"model.attention_dropout": 0.1, "distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2}}}),
    "hook-of-cut-layers": Broken("text", "/distributed/communication_hook", {"distributed": {"strategy": "ddp", "tensor_parallel": {"degree": 2}, "communication_hook": {"type": "bf16"}}}),
    "compression-never-starts": Broken("table", "/distributed/communication_hook/start_step", {"distributed": {"strategy": "ddp", "communication_hook": {"type": "powersgd"}}}),
    "fit-memory-strategy": Broken("table", "/training/dynamic_batch/mode", {"training.dynamic_batch": {"mode": "fit_memory"}, "distributed": {"strategy": "local_sgd", "sync_every": 2}}),
    "fit-memory-hook": Broken("table", "/training/dynamic_batch/mode", {"training.dynamic_batch": {"mode": "fit_memory"}, "distributed": {"strategy": "ddp", "communication_hook": {"type": "bf16"}}}),
    "fit-memory-batch-norm": Broken("table", "/training/dynamic_batch/mode", {"training.dynamic_batch": {"mode": "fit_memory"}, "training.batch_size": 30, "model.normalization": {"type": "batch"}}),
    "fit-memory-tbptt": Broken("text", "/training/dynamic_batch/mode", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8}, "training.dynamic_batch": {"mode": "fit_memory"}}),
    "milestone-seconds": Broken("table", "/training/dynamic_batch/milestones/0/after/seconds", {"training.dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"seconds": 5}, "batch_size": 64}]}}),
    "milestones-in-order": Broken("table", "/training/dynamic_batch/milestones/1/after", {"training.dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"epochs": 2}, "batch_size": 64}, {"after": {"steps": 3}, "batch_size": 32}]}}),
    "milestone-never-fills": Broken("table", "/training/dynamic_batch/milestones/0/batch_size", {"data.loader": {"drop_last": True}, "training.dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"epochs": 2}, "batch_size": 500}]}}),
    "changing-batch-steps": Broken("table", "/schedule/step_size", {"schedule": {"type": "step", "step_size": {"epochs": 2}}, "training.dynamic_batch": {"mode": "schedule", "milestones": [{"after": {"epochs": 2}, "batch_size": 64}]}}),
    "changing-batch-norm": Broken("table", "/training/dynamic_batch/mode", {"training.batch_size": 30, "model.normalization": {"type": "batch"}, "training.dynamic_batch": {"mode": "on_plateau", "max": 60}}),
    "changing-batch-places": Broken("text", "/training/dynamic_batch/mode", {"model": {"type": "gru"}, "training.tbptt": {"steps": 8, "stateful": True}, "training.dynamic_batch": {"mode": "on_plateau", "max": 60}}, None, ("streams-uneven", "streams-shuffled")),
    "plateau-hides-steps": Broken("table", "/schedule/type", {"schedule": {"type": "cosine"}, "training.dynamic_batch": {"mode": "on_plateau", "max": 60}}),
    "plateau-monitor": Broken("table", "/training/dynamic_batch/monitor", {"training.dynamic_batch": {"mode": "on_plateau", "max": 60, "monitor": "validation/mae"}}),
    "plateau-direction": Broken("table", "/training/dynamic_batch/direction", {"training.dynamic_batch": {"mode": "on_plateau", "max": 60, "direction": "max"}}),
    "plateau-never-grows": Broken("table", "/training/dynamic_batch/max", {"training.dynamic_batch": {"mode": "on_plateau", "max": 32}}),
    "nothing-to-halve": Broken("table", "/training/dynamic_batch/min_micro", {"training.dynamic_batch": {"mode": "fit_memory", "min_micro": 32}}),
    "rollback-repeats": Broken("table", "/debug/nan_policy/lr_factor", {"debug": {"nan_policy": {"type": "rollback", "lr_factor": 1}}}),
    "anomaly-ends-first": Broken("table", "/debug/detect_anomaly", {"debug": {"detect_anomaly": True, "nan_policy": {"type": "skip_step"}}}),
    "hang-grace-too-short": Broken("table", "/debug/hang_grace_seconds", {"debug": {"hang_timeout_seconds": 90, "hang_grace_seconds": 60}}),
    "spike-window-too-long": Broken("table", "/debug/spike/window", {"debug": {"spike": {"window": 25}}}),
}  # fmt: skip


def findings(job: Json, known: DatasetFacts | None) -> list[tuple[str, str, str]]:
    """Code, pointer and severity of all that resolving reports."""
    try:
        found = resolve(job, known).warnings
    except SpecError as error:
        found = error.findings
    return [(each.code, each.pointer, each.severity) for each in found]


def test_every_rule_is_broken_once() -> None:
    assert set(BROKEN) == {rule.id for rule in RULES}


@pytest.mark.parametrize(("job", "known"), JOBS.values(), ids=JOBS)
def test_the_documents_that_are_changed_break_no_rule(job: Json, known: DatasetFacts) -> None:
    assert findings(job, known) == []


@pytest.mark.proves("ARCH-04", cases=["layer-dimensions", "layer-order"])
@pytest.mark.proves("ARCH-14")
@pytest.mark.proves("ARCH-21", cases=["norm-sync"])
@pytest.mark.proves("REG-05", cases=["high-dropout"])
@pytest.mark.proves("SCHED-05", cases=["cycle-needs-momentum"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_broken_rule_is_found_where_it_is_broken(rule: Any) -> None:
    case = BROKEN[rule.id]
    job, known = JOBS[case.job]
    found = findings(changed(job, case.changes), case.facts or known)
    assert (rule.id, case.pointer, "error" if rule.level == "R" else "warning") in found
    assert {code for code, _, _ in found} <= {rule.id, *case.also}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_says_what_to_do(rule: Any) -> None:
    assert rule.hint
    assert rule.message
    assert rule.reads
    assert all(read.startswith("/") for read in rule.reads)


SEVERAL: dict[str, tuple[tuple[str, Json], ...]] = {
    "column-twice": (("table", {"data.source.columns": ["a", "t"]}), ("regression", {"task.target": ["a", "a"]})),
    "monitor-not-logged": (
        ("table", {"checkpoint": {"monitor": "validation/f1"}}),
        ("table", {"schedule": {"type": "plateau", "patience": 1, "monitor": "validation/f1"}}),
    ),
    "monitor-mode": (
        ("table", {"checkpoint": {"monitor": "validation/accuracy", "mode": "min"}}),
        ("table", {"schedule": {"type": "plateau", "patience": 1, "mode": "max"}}),
    ),
    "tokens-need-text": (("table", {"training": {"max_tokens": 5}}), ("table", {"evaluation": {"interval": {"tokens": 100}}})),
    "changing-batch-steps": (
        ("table", {"training.dynamic_batch": GROWING, "training.ema": {"start": {"epochs": 1}}}),
        ("table", {"training.dynamic_batch": GROWING, "schedule": {"type": "step", "step_size": {"epochs": 1}}}),
    ),
    "pipeline-alone": (
        ("text", {"model.tie_embeddings": False, "debug.gradients": {}, "distributed": STAGES}),
        ("text", {"model.tie_embeddings": False, "distributed": STAGES | {"tensor_parallel": {}}}),
    ),
    "servers-agreement": (
        ("table", {"distributed": SERVERS, "training.ema": {}}),
        ("table", {"distributed": SERVERS, "debug.nan_policy": {"type": "skip_step"}}),
    ),
    "tpu-cannot": (
        ("table", {"resources": {"device": "tpu"}, "precision": {"mode": "fp16_mixed"}}),
        ("table", {"resources": {"device": "tpu"}, "debug.profiler": {"start_step": 1, "active_steps": 1}}),
    ),
    "gan-without": (("gan", {"training.distillation": LESSON}), ("gan", {"evaluation": {"fit_diagnosis": {}}})),
    "model-fits-task": (
        ("table", {"model": {"type": "transformer_decoder"}}),
        ("table", {"model": {"type": "gan", "discriminator": {"type": "mlp"}}}),
    ),
}
"""Rules whose findings point at several families, each with documents that show two of them."""


def _module(rule: Rule) -> str:
    return rule.find.__module__.removeprefix("stoker.spec.rules.")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_is_in_the_module_that_its_findings_point_at(rule: Rule) -> None:
    family, _, part = BROKEN[rule.id].pointer[1:].partition("/")
    assert find_spec(f"stoker.spec.{_module(rule)}") is not None
    if rule.id in SEVERAL:
        assert _module(rule).partition(".")[0] == rule.reads[0][1:].partition("/")[0]
        return
    home = f"{family}.{part.partition('/')[0]}"
    if find_spec(f"stoker.spec.{family}").submodule_search_locations and find_spec(f"stoker.spec.{home}"):  # type: ignore[union-attr]  # there
        assert _module(rule) == home
    else:
        assert _module(rule).partition(".")[0] == family


@pytest.mark.parametrize("name", SEVERAL)
def test_a_rule_of_several_families_points_at_several(name: str) -> None:
    found = {
        pointer[1:].partition("/")[0]
        for job, changes in SEVERAL[name]
        for code, pointer, _ in findings(changed(JOBS[job][0], changes), JOBS[job][1])
        if code == name
    }
    assert len(found) > 1


def test_rules_stand_in_the_order_of_the_families() -> None:
    families = list(JobSpec.model_fields)
    modules = [_module(rule) for rule in RULES]
    assert modules == sorted(modules, key=lambda module: (families.index(module.partition(".")[0]), module))


def test_ids_are_unique() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)


def test_rules_are_named_functions() -> None:
    assert all(inspect.isfunction(rule.find) for rule in RULES)


MORE: dict[str, tuple[str, Json, DatasetFacts | None, set[str]]] = {
    "text shuffled": ("text", {"data.split": {"strategy": "random"}}, None, {"split-fits"}),
    "arrays of fractions as classes": ("stack", {"task.num_classes": 5}, arrays(y=ArrayFile(dtype="<f8", shape=(150,))), {"array-form"}),
    "warm-up of the whole run": ("table", {"schedule": {"type": "constant", "warmup_steps": 25}}, None, set()),
    "nesterov with dampening": ("table", {"optimizer": {"type": "sgd", "nesterov": True, "momentum": 0.9, "dampening": 0.1}}, None, {"nesterov-needs-momentum"}),
    "milestone beyond the end": ("table", {"schedule": {"type": "multistep", "milestones": [{"epochs": 5}]}}, None, {"schedule-milestones"}),
    "milestone in the warm-up": ("table", {"schedule": {"type": "multistep", "warmup_steps": 9, "milestones": [{"steps": 8}]}}, None, {"schedule-milestones"}),
    "milestones": ("table", {"schedule": {"type": "multistep", "warmup_steps": 9, "milestones": [{"steps": 9}, {"epochs": 4}]}}, None, set()),
    "momentum upside down": ("table", {"optimizer": {"type": "adam"}, "schedule": {"type": "one_cycle", "cycle_momentum": True, "base_momentum": 0.96}}, None, {"cycle-upside-down"}),
    "one peak": ("table", {"optimizer": {"type": "sgd"}, "schedule": {"type": "cyclic", "max_lr": 0.3}}, None, set()),
    "plateau on an unknown metric": ("table", {"schedule": {"type": "plateau", "patience": 1, "monitor": "validation/f1"}}, None, {"monitor-not-logged"}),
    "plateau the wrong way": ("table", {"schedule": {"type": "plateau", "patience": 1, "mode": "max"}}, None, {"monitor-mode"}),
    "polynomial by seconds": ("table", {"schedule": {"type": "polynomial"}, "training": {"max_seconds": 60}}, None, {"schedule-needs-steps"}),
    "restarts by seconds": ("table", {"schedule": {"type": "cosine", "restarts": {"t_0": {"steps": 5}}}, "training": {"max_seconds": 60}}, None, set()),
    "rmsprop in fp16": ("table", {"optimizer": {"type": "rmsprop"}, "precision": {"mode": "fp16_pure"}, "resources": {"device": "cuda"}}, None, {"fp16-moments"}),
    "the companion in fp16": ("table", {"optimizer": {"type": "muon"}, "precision": {"mode": "fp16_pure"}, "resources": {"device": "cuda"}}, None, {"fp16-moments"}),
    "muon in parts": ("table", {"optimizer": {"type": "muon"}, "distributed": {"strategy": "fsdp", "processes_per_node": 2}}, None, set()),
    "nesterov": ("table", {"optimizer": {"type": "sgd", "nesterov": True, "momentum": 0.9}}, None, set()),
    "alibi in stages": ("text", {"model.position": {"type": "alibi"}, "model.tie_embeddings": False, "distributed": {"strategy": "ddp", "processes_per_node": 2, "pipeline_parallel": {"microbatches": 2}}}, None, set()),
    "alibi in cut layers": ("text", {"model.position": {"type": "alibi"}, "distributed": {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}}}, None, {"transformer-cut"}),
    "a window in cut layers": ("text", {"model.window": 3, "model.attention_softcap": 9.0, "distributed": {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}}}, None, set()),
    "an encoder tells no future": ("text", {"model.type": "transformer_encoder"}, None, {"model-fits-task"}),
    "a decoder fills nothing in": ("text", {"task": {"type": "masked_lm"}}, None, {"model-fits-task"}),
    "hidden bytes have no bits": ("text", MASKED | {"evaluation": {"metrics": ["bits_per_byte"]}}, None, {"metric-fits-task"}),
    "an encoder of steps": ("stack", {"model": {"type": "transformer_encoder", "pooler": True}, "task.num_classes": 5}, arrays((150, 6, 4)), set()),
    "an encoder in cut layers": ("text", MASKED | {"distributed": {"strategy": "ddp", "processes_per_node": 2, "tensor_parallel": {"degree": 2}}}, None, {"tensor-parallel-fits-model"}),
    "odd rope": ("text", {"model.key_dim": 7, "model.position": {"type": "rope"}}, None, {"rope-dim"}),
    "key_dim instead of divisible heads": ("text", {"model.num_heads": 5, "model.key_dim": 8}, None, set()),
    "depth scaling with a residual": ("stack", {"model.init": {"type": "normal", "residual_scaling": "depth"}, **stack({"type": "residual", "layers": [{**CONV, "channels": 3}]}, FLAT, END)}, None, set()),
    "batch norm in a residual, micro batch 1": ("stack", {"training.batch_size": 1, **stack({"type": "residual", "layers": [NORM]}, FLAT, END)}, None, {"batch-norm-alone"}),
    "batch norm with drop_last": ("table", {"model.normalization": {"type": "batch"}, "training.batch_size": 67, "data.loader": {"drop_last": True}}, None, set()),
    "batch norm without hidden layers": ("table", {"model.normalization": {"type": "batch"}, "model.hidden_sizes": [], "training.batch_size": 1}, None, set()),
    "batch norm, uneven ranks": ("table", {"model.normalization": {"type": "batch"}, "training.batch_size": 6, "distributed": {"strategy": "ddp"}}, None, {"batch-norm-last-batch"}),
    "max_tokens for a table": ("table", {"training": {"max_tokens": 5}}, None, {"tokens-need-text"}),
    "a class absent from validation": ("table", {"task.num_classes": 3, "data.split": {"test": 0.2}}, table(columns=(column("a"), column("t", "integer", distinct=2, counts={"0": 148, "1": 2}))), {"unseen-classes", "rare-class"}),
    "only the test split": ("table", {"data.split": {"validation": 0, "test": 0.2}}, None, set()),
    "one-dimensional pictures": ("stack", stack({"type": "conv", "channels": 8}, {"type": "pool", "kind": "global_avg"}, END), arrays((150, 3, 8)), set()),
    "regression on text columns": ("regression", {"task.target": "t"}, table(columns=(column("a"), column("t", "string"))), {"column-not-numeric"}),
    "string classes": ("table", {}, table(columns=(column("a"), column("t", "string", distinct=3, counts={"x": 50, "y": 50, "z": 50}))), set()),
    "target misspelled": ("table", {"task.target": "tt", "task.num_classes": 3, "data.source.columns": ["a"]}, None, {"column-missing"}),
    "two targets, one twice": ("regression", {"task.target": ["a", "a"]}, None, {"column-twice"}),
    "ratio with seconds": ("table", {"training": {"max_seconds": 5}, "schedule": {"type": "constant", "warmup_ratio": 0.1}}, None, {"schedule-needs-steps"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_edges(name: str) -> None:
    job, changes, known, expected = MORE[name]
    base, base_facts = JOBS[job]
    assert {code for code, _, _ in findings(changed(base, changes), known or base_facts)} == expected


@pytest.mark.parametrize(
    ("size", "micro", "accumulation", "ranks", "nearest"),
    [(33, None, None, 2, 32), (100, 32, None, 1, 96), (100, 8, 3, 1, 24), (1, None, None, 4, 4), (100, None, 3, 2, 102)],
)
def test_the_nearest_batch_size_is_offered_and_fits(
    size: int, micro: int | None, accumulation: int | None, ranks: int, nearest: int
) -> None:
    job = changed(
        JOBS["table"][0],
        {
            "training.batch_size": size,
            "training.micro_batch_size": micro,
            "training.gradient_accumulation_steps": accumulation,
            "distributed": {"strategy": "ddp", "processes_per_node": ranks} if ranks > 1 else {"strategy": "single"},
        },
    )
    with pytest.raises(SpecError) as caught:
        resolve(job, TABLE)
    hint = next(each.hint for each in caught.value.findings if each.code == "batch-indivisible")
    assert hint == f"the nearest batch_size that fits is {nearest}"
    assert resolve(changed(job, {"training.batch_size": nearest}), TABLE).spec.training.batch_size == nearest


@pytest.mark.parametrize("job", ["numbers", "table", "text"])
def test_the_share_that_is_offered_holds_out_a_sample(job: str) -> None:
    document, known = JOBS[job]
    with pytest.raises(SpecError) as caught:
        resolve(changed(document, {"data.split": {"test": 0.00001}}), known)
    (hint,) = [each.hint for each in caught.value.findings if each.code == "part-empty"]
    assert hint is not None
    least = re.findall(r"at least ([0-9.]+),", hint)[0]
    assert findings(changed(document, {"data.split": {"test": float(least)}}), known) == []


def test_rules_speak_of_the_parts_that_parsed() -> None:
    job = changed(JOBS["table"][0], {"optimizer": {"type": "adam", "lr": "x"}, "loss": {"type": "mse"}, "training": {"epoch": 3}})
    assert {(code, pointer) for code, pointer, _ in findings(job, TABLE)} == {
        ("unknown-key", "/training/epoch"),
        ("wrong-type", "/optimizer/lr"),
        ("loss-fits-task", "/loss/type"),
    }


def test_facts_of_every_kind_are_used() -> None:
    assert {type(each.content) for each in (TABLE, TEXT, PICTURES, ARRAYS, NUMBERS)} == {
        TableFacts,
        TextFacts,
        ImageFacts,
        ArrayFacts,
    }


def test_a_gan_reads_no_targets() -> None:
    """Neither a missing file of them nor one of another length is in its way."""
    job, _ = JOBS["gan"]
    inputs = ArrayFile(dtype="<f4", shape=(150, 3, 8, 8))
    assert findings(job, facts(ArrayFacts(files={"x.npy": inputs}))) == []
    assert findings(job, arrays(y=ArrayFile(dtype="|O", shape=(7, 7, 7)))) == []
