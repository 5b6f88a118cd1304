"""What a mistyped key or value was probably meant to be."""

from collections.abc import Iterable
from functools import cache

from stoker.document.grammar import walk
from stoker.spec.job import JobSpec
from stoker.text import nearest

SYNONYMS: dict[str, tuple[str, ...]] = {
    "accumulate_grad_batches": ("gradient_accumulation_steps",),
    "accumulation": ("gradient_accumulation_steps",),
    "accumulation_steps": ("gradient_accumulation_steps",),
    "alpha": ("lr",),
    "amp": ("precision", "mode"),
    "batch": ("batch_size",),
    "betas": ("beta1", "beta2"),
    "bs": ("batch_size",),
    "channels_out": ("channels",),
    "classes": ("num_classes",),
    "clip": ("gradient_clipping",),
    "clip_grad_norm": ("gradient_clipping",),
    "context_length": ("length",),
    "block_size": ("length",),
    "d_ff": ("ffn_size",),
    "d_model": ("hidden_size",),
    "dataset_name": ("dataset",),
    "decay": ("weight_decay",),
    "depth": ("num_layers",),
    "dim": ("hidden_size", "hidden_sizes"),
    "dropout_rate": ("dropout", "p"),
    "dtype": ("mode",),
    "embed_dim": ("hidden_size",),
    "embedding_size": ("hidden_size",),
    "epoch": ("epochs",),
    "epsilon": ("eps",),
    "eval": ("evaluation",),
    "filters": ("channels",),
    "gpu": ("device", "processes_per_node"),
    "gpus": ("processes_per_node", "device"),
    "grad_accum": ("gradient_accumulation_steps",),
    "grad_clip": ("gradient_clipping",),
    "heads": ("num_heads",),
    "hidden": ("hidden_sizes", "hidden_size"),
    "hidden_dim": ("hidden_size", "hidden_sizes"),
    "hidden_layers": ("hidden_sizes",),
    "iterations": ("max_steps",),
    "iters": ("max_steps",),
    "kernel": ("kernel_size",),
    "kv_heads": ("num_kv_heads",),
    "label": ("target",),
    "label_column": ("target",),
    "layers": ("num_layers", "hidden_sizes"),
    "learning_rate": ("lr",),
    "lr_scheduler": ("schedule",),
    "max_epochs": ("epochs",),
    "max_grad_norm": ("max_norm",),
    "max_iters": ("max_steps",),
    "micro_batch": ("micro_batch_size",),
    "minimum_lr": ("min_lr",),
    "n_classes": ("num_classes",),
    "n_embd": ("hidden_size",),
    "n_epochs": ("epochs",),
    "n_head": ("num_heads",),
    "n_heads": ("num_heads",),
    "n_kv_heads": ("num_kv_heads",),
    "n_layer": ("num_layers",),
    "n_layers": ("num_layers",),
    "norm": ("normalization",),
    "min_nnodes": ("min_nodes",),
    "nnodes": ("nodes",),
    "nproc_per_node": ("processes_per_node",),
    "num_machines": ("nodes",),
    "num_nodes": ("nodes",),
    "num_epochs": ("epochs",),
    "num_processes": ("processes_per_node",),
    "num_train_epochs": ("epochs",),
    "opt": ("optimizer",),
    "out_channels": ("channels",),
    "out_features": ("units",),
    "parallel": ("distributed",),
    "per_device_train_batch_size": ("micro_batch_size",),
    "pool_size": ("kernel_size",),
    "rate": ("lr", "p"),
    "retries": ("max_retries",),
    "rope_theta": ("base",),
    "scheduler": ("schedule",),
    "seq_len": ("length",),
    "sequence_length": ("length",),
    "size": ("units", "hidden_size"),
    "smoothing": ("label_smoothing",),
    "steps": ("max_steps",),
    "theta": ("base",),
    "timeout": ("time_limit_seconds",),
    "tokens": ("max_tokens",),
    "val": ("validation",),
    "val_split": ("validation",),
    "valid": ("validation",),
    "vocab": ("vocab_size",),
    "warmup": ("warmup_steps",),
    "wd": ("weight_decay",),
    "weights": ("class_weights",),
    "width": ("hidden_size", "hidden_sizes"),
    "workers": ("processes_per_node",),
    "world_size": ("processes_per_node",),
}
"""What others call a key → its names here, best first."""

VALUE_SYNONYMS: dict[str, str] = {
    "bce": "cross_entropy",
    "bf16": "bf16_mixed",
    "bfloat16": "bf16_mixed",
    "bytes": "byte",
    "ce": "cross_entropy",
    "character": "char",
    "cnn": "layers",
    "conv2d": "conv",
    "cosine_annealing": "cosine",
    "crossentropy": "cross_entropy",
    "data_parallel": "ddp",
    "dense": "linear",
    "distributed_data_parallel": "ddp",
    "fc": "linear",
    "float32": "fp32",
    "gpt": "transformer_decoder",
    "gpu": "cuda",
    "image": "image_folder",
    "images": "image_folder",
    "language_modeling": "causal_lm",
    "lm": "causal_lm",
    "maxpool": "pool",
    "mean_squared_error": "mse",
    "npy": "arrays",
    "numpy": "arrays",
    "rotary": "rope",
    "sequential": "layers",
    "swish": "silu",
    "transformer": "transformer_decoder",
    "txt": "text",
}


def key_like(key: str, siblings: Iterable[str]) -> str | None:
    """The sibling that a key was probably meant to be."""
    known = list(siblings)
    word = _normal(key)
    return next((name for name in SYNONYMS.get(word, ()) if name in known), None) or nearest(word, known)


def value_like(value: str, choices: Iterable[str]) -> str | None:
    """The choice that a value was probably meant to be."""
    known = list(choices)
    word = _normal(value)
    meant = VALUE_SYNONYMS.get(word)
    return meant if meant in known else nearest(word, known)


def home_of(key: str, above: str) -> str | None:
    """Where in the spec a key lives, when it is known but stands elsewhere; the shortest path wins, then the first."""
    for name in (_normal(key), *SYNONYMS.get(_normal(key), ())):
        home = min((path for path in _homes().get(name, ()) if path != above), key=lambda path: path.count("."), default=None)
        if home is not None:
            return f"{home}.{name}" if home else name
    return None


@cache
def _homes() -> dict[str, tuple[str, ...]]:
    """Key → dotted paths of the mappings that have it, in the order of the spec; discriminators are everywhere and left out."""
    homes: dict[str, dict[str, None]] = {}
    for step in walk(JobSpec):
        if step.field.name not in ("type", "strategy"):
            homes.setdefault(step.field.name, {})[step.path.rpartition(".")[0]] = None
    return {name: tuple(paths) for name, paths in homes.items()}


def _normal(word: str) -> str:
    return word.strip().lower().replace("-", "_").replace(" ", "_")
