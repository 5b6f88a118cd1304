"""The model of a checkpoint, alone: to be used, or to teach."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stoker.spec import JobSpec
from stoker.spec.initialization.finetune import Lora
from worker.trainer.checkpoint.places import STATE
from worker.trainer.checkpoint.read import Stored
from worker.trainer.data import Description
from worker.trainer.initialization.adapter import merge
from worker.trainer.model import build_model
from worker.trainer.precision import narrowed
from worker.trainer.regularization.spectral_norm import bound
from worker.trainer.runtime.names import plain
from worker.trainer.task.multi_task import width_of, with_heads


@dataclass(frozen=True)
class Saved:
    spec: JobSpec
    model: nn.Module
    """In evaluation mode; with the average of the weights where one was judged in their place."""
    about: Description


def load_model(path: Path) -> Saved:
    """From a checkpoint directory alone. Raises OSError, ValueError or RuntimeError when it is not a whole checkpoint."""
    spec, about = JobSpec.model_validate_json((path / "spec.json").read_bytes()), Description.load(path)
    width = width_of(spec.task, spec.loss, about)
    text = about.codec is not None
    model = build_model(spec.model, about.shape, width, text=text, vocabulary=about.vocabulary, padding=about.padding)
    model = bound(spec.regularization.spectral_norm, narrowed(with_heads(spec.task, model, about), spec.precision))
    with Stored(path) as stored:
        names = {plain(name): name for name in model.state_dict()}
        model.load_state_dict({names.get(name, name): tensor for name, tensor in judged(stored, path, spec).items()})
    return Saved(spec, model.eval(), about)


def judged(stored: Stored, path: Path, spec: JobSpec) -> dict[str, torch.Tensor]:
    """The model's tensors, adapters merged; where an average of the weights stands beside them and was judged in their place,
    those of the average.
    """
    tensors, average = stored.all("model"), json.loads((path / STATE).read_bytes())["parts"].get("average", {})
    if average.get("count") and not average["inside"]:
        tensors |= {n.removeprefix("average/"): t for n, t in stored.all("parts").items() if n.startswith("average/")}
    return merge(tensors, adapter_of(spec))


def adapter_of(spec: JobSpec) -> Lora | None:
    return None if spec.initialization.finetune is None else spec.initialization.finetune.adapter
