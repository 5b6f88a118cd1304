"""Distillation specs into an objective: what the targets say, and what a trained model says of the same samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.training.distillation import Distillation, LayerPair
from worker.trainer.data import Description
from worker.trainer.data.normalization import Scaling
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import SummedCrossEntropy, SummedLoss
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.world import World

FOLDER = "teacher"
"""Of the teacher's checkpoint in the workspace, beside the data sets."""


@dataclass(frozen=True)
class Taught:
    """A trained model, and what its run learned about its data."""

    model: nn.Module
    about: Description

    @property
    def bytes(self) -> int:
        """Of its weights and statistics."""
        return sum(tensor.nbytes for tensor in (*self.model.parameters(), *self.model.buffers()))


class Ear:
    """Hears what a module said last."""

    def __init__(self, model: nn.Module, path: str, field: str) -> None:
        """Raises SpecProblem when there is no such module."""
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            known = ", ".join(name for name, _ in model.named_modules() if name)
            raise SpecProblem(f"{field}: there is no module {path!r}; there are {known[:600]}") from error
        self.heard: torch.Tensor | None = None
        module.register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, inputs: object, output: object) -> None:
        said = output[0] if isinstance(output, tuple) else output  # recurrent layers add their state
        self.heard = said if isinstance(said, torch.Tensor) else None

    def take(self) -> torch.Tensor:
        """What was heard, once."""
        heard, self.heard = self.heard, None
        assert heard is not None, "the model has just run"
        return heard


class Teacher:
    """A trained model that no longer learns. It sees samples as they were in its own run."""

    def __init__(self, taught: Taught, student: Description, device: torch.device) -> None:
        self._model = taught.model.to(device).eval().requires_grad_(False)
        same = _equal(taught.about.scaling, student.scaling)
        self._back, self._on = (None, None) if same else (_moved(student.scaling, device), _moved(taught.about.scaling, device))

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        if self._back is not None:
            inputs = inputs * self._back.scale + self._back.shift
        if self._on is not None:
            inputs = self._on.apply(inputs)
        out: torch.Tensor = self._model(inputs)
        return out.float()


class Distilled(Objective):
    """alpha x T² x KL(teacher, student) + (1 - alpha) x loss, and the squared differences of chosen layers; summed.

    Each sample or token weighs in all of them what it weighs in the loss. The teacher is no part of the module: it is neither
    wrapped nor saved.
    """

    def __init__(
        self, model: nn.Module, loss: SummedCrossEntropy, teacher: Teacher, spec: Distillation, pairs: Sequence[tuple[Ear, Ear]]
    ) -> None:
        super().__init__(model, loss)
        self._of = (teacher,)
        self._temperature, self._alpha, self._pairs = spec.temperature, spec.alpha, tuple(pairs)
        self._weights = [pair.weight for pair in spec.layer_map]
        self._padding: int | None = getattr(model, "padding", None)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if inputs.shape[0] == 0:
            return super().forward(inputs, targets)
        taught = self._of[0](inputs)
        outputs = self.model(inputs)
        total: torch.Tensor = (1 - self._alpha) * self.loss(outputs, targets)
        if self._alpha > 0:
            total = total + self._alpha * self._divergence(outputs.float(), taught, targets)
        weights: torch.Tensor = self.loss.sample_weights(targets)  # type: ignore[operator]  # a loss of ours
        for (student, teacher), factor in zip(self._pairs, self._weights, strict=True):
            apart = (student.take().float() - teacher.take().float()).square()
            each = self._mean(apart, inputs)
            total = total + factor * (each * weights.to(each)).sum()
        return total

    def _mean(self, apart: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """(B, ...) → (B,). Padding of a short text (B, T, ...), which the model does not look at, is not compared."""
        if self._padding is None or apart.dim() < 3 or apart.shape[1] != inputs.shape[1]:
            return apart.flatten(1).mean(1)
        seen = inputs != self._padding
        seen[:, 0] = True  # of an empty text
        return (apart.flatten(2).mean(2) * seen).sum(1) / seen.sum(1)

    def _divergence(self, outputs: torch.Tensor, taught: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        heat = self._temperature
        wanted, said = F.log_softmax(taught / heat, -1), F.log_softmax(outputs / heat, -1)
        each = F.kl_div(said, wanted, reduction="none", log_target=True).sum(-1).flatten()
        weights = self.loss.weights
        return heat**2 * (each if weights is None else each * weights[targets.flatten()]).sum()  # type: ignore[index]  # a buffer


def build_objective(
    spec: Distillation | None,
    model: nn.Module,
    loss: SummedLoss,
    *,
    taught: Taught | None,
    about: Description,
    sample: torch.Tensor,
    world: World,
) -> Objective:
    """The plain objective without distillation. `sample` is a batch of one, on the device.

    Raises SpecProblem when teacher and student do not fit.
    """
    if spec is None:
        return Objective(model, loss)
    if taught is None:
        raise SpecProblem(
            f"training.distillation.teacher: checkpoint {spec.teacher.checkpoint} of {spec.teacher.job} is no longer there; "
            "submit again with one that is"
        )
    if not isinstance(loss, SummedCrossEntropy):
        raise SpecProblem("training.distillation: a teacher's probabilities are for classes and tokens; remove it")
    _check(taught.about, about)
    teacher = Teacher(taught, about, world.device)
    pairs = [_ears(pair, model, taught.model, index) for index, pair in enumerate(spec.layer_map)]
    if pairs:
        _compare(spec.layer_map, pairs, model, teacher, sample)
    return Distilled(model, loss, teacher, spec, pairs)


def _ears(pair: LayerPair, student: nn.Module, teacher: nn.Module, index: int) -> tuple[Ear, Ear]:
    at = f"training.distillation.layer_map[{index}]"
    return Ear(student, pair.student, f"{at}.student"), Ear(teacher, pair.teacher, f"{at}.teacher")


@torch.no_grad()
def _compare(
    layers: Sequence[LayerPair], pairs: Sequence[tuple[Ear, Ear]], model: nn.Module, teacher: Teacher, sample: torch.Tensor
) -> None:
    """Each pair must say tensors of one shape; the models play one sample to show it."""
    was = model.training
    model.eval()(sample)
    model.train(was)
    teacher(sample)
    for index, (layer, (student, wanted)) in enumerate(zip(layers, pairs, strict=True)):
        if student.heard is None or wanted.heard is None:
            raise SpecProblem(
                f"training.distillation.layer_map[{index}]: a layer gives no tensor, or is not called; choose another"
            )
        ours, theirs = student.take().shape, wanted.take().shape
        if ours != theirs:
            raise SpecProblem(
                f"training.distillation.layer_map[{index}]: {layer.student} gives {tuple(ours)}, {layer.teacher} of the teacher "
                f"{tuple(theirs)}; choose layers of one shape"
            )


def _check(teacher: Description, student: Description) -> None:
    """Raises SpecProblem for another kind of sample, or other classes or tokens."""
    where = "training.distillation.teacher: it was trained"
    if teacher.shape != student.shape:
        raise SpecProblem(f"{where} on samples of shape {teacher.shape}, these are {student.shape}")
    if teacher.outputs != student.outputs:
        raise SpecProblem(f"{where} to tell {teacher.outputs} classes or tokens apart, here there are {student.outputs}")
    if teacher.classes != student.classes:
        raise SpecProblem(f"{where} on other classes, or in another order; train it on the same data set")
    if teacher.columns != student.columns:
        raise SpecProblem(f"{where} on the columns {', '.join(teacher.columns)}, here they are {', '.join(student.columns)}")
    theirs, ours = (about.codec.dump() if about.codec is not None else None for about in (teacher, student))
    if theirs != ours:
        raise SpecProblem(f"{where} on other tokens; use its tokenizer and its data set")


def _equal(one: Scaling | None, other: Scaling | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one.shift, other.shift) and torch.equal(one.scale, other.scale)


def _moved(scaling: Scaling | None, device: torch.device) -> Scaling | None:
    return None if scaling is None else Scaling(scaling.shift.to(device), scaling.scale.to(device))
