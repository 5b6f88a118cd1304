"""A table of a model's layers: what each gives, weighs and costs."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from worker.trainer.measure.flops import MetaModel
from worker.trainer.runtime.artifact import ArtifactWriter


@dataclass(frozen=True)
class Row:
    module: str
    """Path inside the model; empty for the model itself."""
    type: str
    output: tuple[int, ...] | None
    """Shape of what it gives for one sample; null where it gives no tensor, is never called, or cannot run without numbers."""
    parameters: int
    """Of it and what is in it."""
    trainable: int
    forward_flops: int | None
    """Of one sample; null where the model cannot run without numbers."""


def summarize(model: nn.Module, meta_model: MetaModel) -> list[Row]:
    """A row for the model and for each module inside, in their order."""
    played = meta_model.play(_play)
    shapes, flops = played if played is not None else ({}, None)
    return [
        Row(
            name,
            type(module).__name__,
            shapes.get(name),
            sum(p.numel() for p in module.parameters()),
            sum(p.numel() for p in module.parameters() if p.requires_grad),
            None if flops is None else flops.get(name, 0),
        )
        for name, module in model.named_modules()
    ]


def _play(model: nn.Module, batch: torch.Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """Shapes of outputs and FLOPs of the forward pass, per sample, by module."""
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                shapes.setdefault(name, tuple(output.shape[1:]))

        modules[name].register_forward_hook(hook)

    modules = dict(model.named_modules())
    for name in modules:
        remember(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch)
    root = type(model).__name__
    costs = {name: sum(ops.values()) // len(batch) for name, ops in counter.get_flop_counts().items()}
    flops = {name: costs.get(f"{root}.{name}" if name else root, 0) for name in modules}
    return shapes, flops | {"": costs["Global"]}


def _lines(rows: list[Row]) -> Iterator[str]:
    head = ("module", "type", "output", "parameters", "trainable", "forward FLOPs")
    table = [head] + [
        (
            row.module or "(model)",
            row.type,
            "" if row.output is None else "x".join(map(str, row.output)) or "1",
            f"{row.parameters:,}",
            f"{row.trainable:,}",
            "" if row.forward_flops is None else f"{row.forward_flops:,}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in table) for i in range(len(head))]
    for line in table:
        cells = [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
        yield "  ".join(cells).rstrip()


def keep_summary(model: nn.Module, meta_model: MetaModel, artifacts: ArtifactWriter) -> None:
    """As model_summary.json and, for people, model_summary.txt; on the first rank."""
    if artifacts.is_lead:
        rows = summarize(model, meta_model)
        artifacts.text("model_summary.json", json.dumps({"layers": [asdict(row) for row in rows]}, indent=1) + "\n")
        artifacts.text("model_summary.txt", "\n".join(_lines(rows)) + "\n")
