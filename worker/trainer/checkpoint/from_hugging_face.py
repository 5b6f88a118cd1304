"""A directory of Hugging Face's transformers, read as one of our models: safetensors only, nothing is executed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, assert_never

import torch
from safetensors import SafetensorError, safe_open

from stoker.spec.derived.hugging_face import Architecture, Configured, architecture_of, configured
from stoker.spec.model import Transformer, TransformerEncoder
from worker.trainer.checkpoint.hugging_face import BERT, BERT_REST, GPT2, LLAMA

MAX_CONFIG_BYTES = 1 << 20
PREFIX = {"gpt2": "transformer.", "llama": "model.", "bert": "bert."}
"""Before the names of what is not the head; a model saved without head has none."""
DERIVED = ("attn.bias", "attn.masked_bias", "rotary_emb.inv_freq", "embeddings.position_ids", "predictions.decoder.weight")
DERIVED_ENDS = (*DERIVED, "predictions.decoder.bias")
"""Ends of names that follow from the others."""


@dataclass(frozen=True)
class Source:
    """Where one of our tensors comes from."""

    theirs: str
    turned: bool = False
    """Their matrices stand the other way round."""
    third: int | None = None
    """Which third of theirs, where queries, keys and values are one."""

    def made(self, tensor: torch.Tensor) -> torch.Tensor:
        """Raises ValueError for a tensor of an impossible shape."""
        if (tensor.dim() != 2 and self.turned) or tensor.dim() == 0 or (self.third is not None and tensor.shape[-1] % 3):
            raise ValueError(f"{self.theirs} has the shape {list(tensor.shape)}, which no config.json gives it")
        tensor = tensor if self.third is None else tensor.chunk(3, -1)[self.third]
        return (tensor.t() if self.turned else tensor).contiguous()


@dataclass(frozen=True)
class Foreign:
    """What was read."""

    configured: Configured
    tensors: Mapping[str, torch.Tensor]
    """Under our names."""
    unexpected: tuple[str, ...]
    """Tensors of theirs that our model has no place for."""

    def headed(self, model: Transformer) -> tuple["Foreign", tuple[str, ...]]:
        """Without the heads of tasks that `model` does not have, and the names of what was left out."""
        if not isinstance(model, TransformerEncoder):
            return self, ()
        masked = model.head_transform
        doomed: tuple[str, ...] = ("head.",) if masked else ("transform.", "transform_norm.", "head_bias")
        doomed += () if model.pooler else ("pooler.",)
        aside = {name for name in self.tensors if name.startswith(doomed)}
        aside |= {name for name in self.unexpected if name.startswith("cls.")}
        kept = {name: tensor for name, tensor in self.tensors.items() if name not in aside}
        rest = tuple(name for name in self.unexpected if name not in aside)
        return replace(self, tensors=kept, unexpected=rest), tuple(sorted(aside))


def read_hugging_face(directory: Path) -> Foreign:
    """Raises ValueError, saying why, for a directory that holds none of the architectures that we compute, or no safetensors."""
    known = read_config(directory)
    architecture = architecture_of(known.model)
    assert architecture is not None
    tensors: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        where = {name: file for path in _files(directory) for file in [_opened(stack, path)] for name in _names(file)}
        left = {name for name in where if not name.endswith(DERIVED_ENDS)}
        for ours, source in _sources(architecture, known.model):
            names = (source.theirs, source.theirs.removeprefix(PREFIX[architecture]))
            found = next((name for name in names if name in where), None)
            if found is not None:  # a model saved without its head; whoever loads says what is missing
                tensors[ours] = source.made(_tensor(where[found], found))
                left.discard(found)
    return Foreign(known, tensors, tuple(sorted(left)))


def read_config(directory: Path) -> Configured:
    """What config.json says. Raises ValueError."""
    path = directory / "config.json"
    if not path.is_file() or path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError("there is no config.json of a sensible size in the directory")
    try:
        return configured(json.loads(path.read_bytes()))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError("config.json is not JSON") from error


def _files(directory: Path) -> list[Path]:
    found = sorted(path for path in directory.glob("*.safetensors") if path.is_file())
    if not found:
        pickled = any(directory.glob("*.bin")) or any(directory.glob("*.pt"))
        raise ValueError("there is no *.safetensors file" + ("; pickled weights are not read, convert them" if pickled else ""))
    return found


def _opened(stack: ExitStack, file: Path) -> Any:
    """An open safetensors file (`Any`: the library has no types)."""
    try:
        return stack.enter_context(safe_open(file, "pt"))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name} is not a safetensors file: {error}") from error


def _names(file: Any) -> list[str]:
    return list(file.keys())


def _tensor(file: Any, name: str) -> torch.Tensor:
    tensor: torch.Tensor = file.get_tensor(name)
    return tensor


def _sources(architecture: Architecture, model: Transformer) -> Iterator[tuple[str, Source]]:
    """Our names, and how their tensors are made of theirs."""
    match architecture:
        case "gpt2":
            yield from _of_gpt2(model)
        case "llama":
            yield from _of_llama(model)
        case "bert":
            yield from _of_bert(model)
        case _:
            assert_never(architecture)
    if architecture != "bert" and not model.tie_embeddings:
        yield "head.weight", Source("lm_head.weight")


def _of_gpt2(model: Transformer) -> Iterator[tuple[str, Source]]:
    yield "tokens.weight", Source("transformer.wte.weight")
    yield "positions.weight", Source("transformer.wpe.weight")
    for kind in ("weight", "bias"):
        yield f"norm.{kind}", Source(f"transformer.ln_f.{kind}")
        for layer in range(model.num_layers):
            there = f"transformer.h.{layer}"
            for at, part in enumerate("qkv"):
                yield f"blocks.{layer}.attention.{part}.{kind}", Source(f"{there}.attn.c_attn.{kind}", kind == "weight", at)
            for ours, theirs in GPT2.items():
                turned = kind == "weight" and not ours.endswith("norm")
                yield f"blocks.{layer}.{ours}.{kind}", Source(f"{there}.{theirs}.{kind}", turned)


def _of_llama(model: Transformer) -> Iterator[tuple[str, Source]]:
    yield "tokens.weight", Source("model.embed_tokens.weight")
    yield "norm.weight", Source("model.norm.weight")
    for layer in range(model.num_layers):
        for ours, theirs in LLAMA.items():
            for kind in ("weight", "bias") if model.bias and not ours.endswith("norm") else ("weight",):
                yield f"blocks.{layer}.{ours}.{kind}", Source(f"model.layers.{layer}.{theirs}.{kind}")


def _of_bert(model: Transformer) -> Iterator[tuple[str, Source]]:
    for ours, theirs in BERT_REST.items():
        for kind in ("weight",) if ours in ("tokens", "positions", "segments") else ("weight", "bias"):
            yield f"{ours}.{kind}", Source(f"{theirs}.{kind}")
    yield "head_bias", Source("cls.predictions.bias")
    for layer in range(model.num_layers):
        for ours, theirs in BERT.items():
            for kind in ("weight", "bias"):
                yield f"blocks.{layer}.{ours}.{kind}", Source(f"bert.encoder.layer.{layer}.{theirs}.{kind}")
