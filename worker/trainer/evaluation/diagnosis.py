"""What is said of a model when its run has ended: which of its weights are zero, and whether it fits too much or too little."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn

from stoker.events import Metrics, Notice
from stoker.spec.evaluation import Evaluation, FitDiagnosis, SparsityReport
from worker.trainer.errors import SpecProblem
from worker.trainer.evaluation import Criterion, Examiner, Split
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.hooks import FinishHook
from worker.trainer.runtime.journal import Journal
from worker.trainer.runtime.names import plain
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.shards import whole

Verdict = Literal["good", "overfit", "underfit"]
SAID: dict[Verdict, str] = {
    "good": "the model fits",
    "overfit": "the model overfits: regularize more, train for less, give it more data or make it smaller",
    "underfit": "the model underfits: train for longer, raise optimizer.lr, regularize less or make it larger",
}
NOTHING = 1e-12
"""A loss of the best constant answer below this leaves nothing to explain: all targets are alike."""
LARGEST = 1 << 24
"""Numbers that the constant answers to the reference samples have at most."""


@dataclass(frozen=True)
class Sparsity:
    """Counts weights that are zero. Every rank takes part, since weights may be in shards; the first one writes."""

    spec: SparsityReport
    model: nn.Module
    columns: Sequence[str]
    """Names of the inputs, for tables."""
    width: int
    """Numbers that the model reads of a sample, 0 for text."""
    artifacts: ArtifactWriter
    journal: Journal
    pieces: dist.ProcessGroup | None = None
    """Ranks that hold other weights of the model."""

    def __call__(self, step: int, reason: str) -> None:
        rows, numbers, zeros = list[dict[str, object]](), 0, 0
        idle: list[int] | None = None
        first = True
        for name, weight in self.model.named_parameters():
            zero = whole(weight.detach()).abs() <= self.spec.threshold
            count = int(zero.sum().item())
            rows.append({"name": plain(name), "numbers": zero.numel(), "zeros": count})
            numbers, zeros = numbers + zero.numel(), zeros + count
            if first and zero.dim() > 1:  # a later layer may have as many inputs, but they are not the sample's
                first = False
                idle = zero.all(0).nonzero().flatten().tolist() if zero.shape[1:] == (self.width,) else None
        if self.pieces is not None:
            parts: list[Any] = [None] * dist.get_world_size(self.pieces)
            dist.all_gather_object(parts, (rows, numbers, zeros), group=self.pieces)
            rows = [row for part, _, _ in parts for row in part]
            numbers, zeros = sum(part[1] for part in parts), sum(part[2] for part in parts)
        values = {"sparsity/zeros": float(zeros), "sparsity/share": zeros / max(1, numbers)}
        if idle is not None:
            values["sparsity/zero_features"] = float(len(idle))
        named = idle if idle is None or len(self.columns) != self.width else [self.columns[index] for index in idle]
        self.journal.write(Metrics(step=step, values=values, t=time.time()))
        self.artifacts.text("sparsity.json", json.dumps({"step": step, "zero_features": named, "weights": rows}, indent=1) + "\n")


@dataclass(frozen=True)
class Fit:
    """Judges the model on training and validation samples beside the best constant answer."""

    spec: FitDiagnosis
    model: nn.Module
    says: Callable[[torch.Tensor], torch.Tensor]
    examiner: Examiner
    criterion: Criterion
    outputs: int
    """Numbers that the model says of a sample, or of a token."""
    train: Split
    validation: Split
    artifacts: ArtifactWriter
    journal: Journal

    def __call__(self, step: int, reason: str) -> None:
        train, validation = (
            self.examiner.judge(self.model, self.says, split, self.spec.samples)["loss"]
            for split in (self.train, self.validation)
        )
        constant = constant_loss(self.criterion, self.train, self.outputs, self.spec.samples, self.examiner.world.device)
        explained, held_out = (1 - loss / constant if constant > NOTHING else 1.0 for loss in (train, validation))
        verdict = _verdict(explained < self.spec.least, explained - held_out > self.spec.gap)
        losses = {"train": train, "validation": validation, "constant": constant}
        found = {"verdict": verdict, "losses": losses, "explained": {"train": explained, "validation": held_out}}
        self.journal.write(
            Metrics(step=step, values={"fit/train_explained": explained, "fit/validation_explained": held_out}, t=time.time())
        )
        self.artifacts.text("fit.json", json.dumps({"step": step, **found}, indent=1) + "\n")
        message = f"{SAID[verdict]} (explains {explained:.0%} of the loss in training, {max(held_out, -9.99):.0%} in validation)"
        level: Literal["info", "warning"] = "info" if verdict == "good" else "warning"
        self.journal.write(Notice(level=level, code=f"fit_{verdict}", message=message, step=step))


def _verdict(too_little: bool, too_much: bool) -> Verdict:
    if too_little:
        return "underfit"
    return "overfit" if too_much else "good"


def constant_loss(criterion: Criterion, train: Split, width: int, samples: int, device: torch.device) -> float:
    """Mean loss of the constant answer that is best for the first training samples, by minimisation: the entropy of classes, the
    variance of numbers, whatever the loss. The same on every rank.
    """
    _, first = train.slice(0, 1, device)
    places = first.numel() if not first.is_floating_point() and first.dim() > 1 else 1
    count = max(1, min(len(train), samples, LARGEST // (places * width)))
    _, targets = train.slice(0, count, device)
    targets = targets.float() if targets.is_floating_point() else targets
    shape = (*targets.shape, width) if places > 1 else (count, width)
    weight = criterion.sample_weights(targets).sum().to(device, torch.float32)
    answer = torch.zeros(width, device=device, requires_grad=True)
    search = torch.optim.LBFGS([answer], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        search.zero_grad()
        mean = criterion(answer.expand(shape), targets) / weight
        mean.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        return mean

    with torch.enable_grad():
        search.step(loss)  # type: ignore[no-untyped-call]  # torch has no types here
        return float(loss().detach())


def build_diagnosis(
    spec: Evaluation,
    model: nn.Module,
    says: Callable[[torch.Tensor], torch.Tensor],
    *,
    examiner: Examiner,
    criterion: Criterion,
    train: Split,
    validation: Split,
    columns: Sequence[str],
    width: int,
    outputs: int,
    artifacts: ArtifactWriter,
    journal: Journal,
    pieces: dist.ProcessGroup | None = None,
) -> Part:
    """`width`: numbers of a sample, 0 for text; `outputs`: of an answer; `pieces`: ranks that hold other weights.

    Raises SpecProblem where there are no samples to hold against those of training.
    """
    found: tuple[FinishHook, ...] = ()
    if spec.sparsity_report is not None:
        found = (Sparsity(spec.sparsity_report, model, columns, width, artifacts, journal, pieces),)
    if spec.fit_diagnosis is not None:
        if len(validation) == 0:
            raise SpecProblem("evaluation.fit_diagnosis: there are no validation samples; set data.split.validation")
        found = (
            *found,
            Fit(spec.fit_diagnosis, model, says, examiner, criterion, outputs, train, validation, artifacts, journal),
        )
    return Part(finish_hooks=found)
