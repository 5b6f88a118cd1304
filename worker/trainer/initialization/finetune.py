"""Fine-tuning specs into what learns: frozen weights, weights that join later, rates by layer."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from stoker.spec.base import Duration
from stoker.spec.derived.timeline import Timeline
from stoker.spec.initialization.finetune import Finetune, matches
from worker.trainer.data import Batch
from worker.trainer.errors import SpecProblem
from worker.trainer.initialization.adapter import LORA, adapt
from worker.trainer.model.parts import HeldNorm
from worker.trainer.runtime.names import plain
from worker.trainer.training.passes import Passes

AT = "initialization.finetune"


def finetuned(spec: Finetune | None, model: nn.Module) -> None:
    """Adapters put in and weights frozen, in place. Raises SpecProblem for a pattern that fits nothing, or when nothing is left."""
    if spec is None:
        return
    if spec.adapter is not None:
        adapt(spec.adapter, model)
    names = [name for name, _ in model.named_parameters()]
    for index, pattern in enumerate(spec.freeze):
        _some(f"{AT}.freeze[{index}]", pattern, names)
    for index, later in enumerate(spec.unfreeze_at):
        _some(f"{AT}.unfreeze_at[{index}].pattern", later.pattern, names)
    for index, pattern in enumerate(spec.adapter.train if spec.adapter is not None else ()):
        _some(f"{AT}.adapter.train[{index}]", pattern, names)
    for name, weight in model.named_parameters():
        if spec.frozen(name) and not name.endswith(LORA):
            weight.requires_grad_(False)
    for name, norm in _norms(model):
        norm.held = _still(spec, name, norm)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise SpecProblem(f"{AT}.freeze: nothing is left that learns; freeze less")


def _some(where: str, pattern: str, names: Iterable[str]) -> None:
    if not any(matches(name, (pattern,)) for name in names):
        known = ", ".join(names)
        raise SpecProblem(f"{where}: {pattern!r} matches no weight; there are {known[:600]}")


def _norms(model: nn.Module) -> list[tuple[str, HeldNorm]]:
    return [(plain(name), module) for name, module in model.named_modules() if isinstance(module, HeldNorm)]


def _still(spec: Finetune, name: str, norm: HeldNorm) -> bool:
    """A norm that learns nothing keeps its statistics; one without weights goes by the name its weight would have."""
    own = [f"{name}.{key}" for key, _ in norm.named_parameters(recurse=False)] or [f"{name}.weight"]
    return all(spec.frozen(weight) or spec.later(weight) is not None for weight in own)


@dataclass
class Thawing:
    """Passes whose gradients reach only the weights that learn already: without one, the optimizer leaves a weight as it is."""

    passes: Passes
    reached: Callable[[Duration], bool]
    waiting: list[tuple[nn.Parameter, Duration]]
    norms: list[tuple[HeldNorm, Duration]]

    def __call__(self, batch: Batch) -> torch.Tensor:
        for norm, at in self.norms:
            norm.held = not self.reached(at)
        loss = self.passes(batch)
        for weight, at in self.waiting:
            if not self.reached(at):
                weight.grad = None
        return loss


def thawing(spec: Finetune | None, model: nn.Module, passes: Passes, reached: Callable[[Duration], bool]) -> Passes:
    """`reached`: whether the step that is being made lies behind a duration."""
    if spec is None or not spec.unfreeze_at:
        return passes
    weights = [(weight, spec.later(plain(name))) for name, weight in model.named_parameters() if weight.requires_grad]
    norms = [(norm, spec.later(f"{name}.weight")) for name, norm in _norms(model)]
    waiting = [(weight, later.at) for weight, later in weights if later is not None]
    return Thawing(passes, reached, waiting, [(norm, later.at) for norm, later in norms if later is not None])


def scale_of(spec: Finetune | None, model: nn.Module) -> Callable[[str], float]:
    """The factor on a weight's learning rate, by its name."""
    if spec is None or spec.layer_lr_decay is None:
        return lambda name: 1.0
    decay, layers = spec.layer_lr_decay, layers_of(model)
    last = max(layers.values(), default=0)
    return lambda name: decay ** (last - layers[plain(name)])


def layers_of(model: nn.Module) -> dict[str, int]:
    """Weights by name to the layer they belong to, from 0.

    Layers are the model's modules in order, lists and sequences of modules taken apart; embeddings at the beginning are one
    layer, and what has only vectors, a norm, belongs to the layer before it.
    """
    found: dict[str, int] = {}
    layer, embeds = -1, True
    for name, module in _units(model, ""):
        weights = list(module.named_parameters())
        embedding = isinstance(module, nn.Embedding)
        if weights and (layer < 0 or not (embeds and embedding)) and (layer < 0 or any(w.dim() > 1 for _, w in weights)):
            layer += 1
        embeds = embeds and (embedding or not weights)
        found |= {plain(f"{name}.{key}"): layer for key, _ in weights}
    own = {plain(name): 0 for name, _ in model.named_parameters() if plain(name) not in found}
    return own | found


def _units(module: nn.Module, at: str) -> Iterable[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = f"{at}.{name}" if at else name
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from _units(child, path)
        else:
            yield path, child


def reached_in(
    timeline: Timeline, samples_after: Callable[[int], int], tokens: int, moment: Callable[[], int]
) -> Callable[[Duration], bool]:
    """Whether a duration is over at the step that is being made. `tokens`: of a sample."""

    def reached(at: Duration) -> bool:
        step = moment()
        if at.steps is not None:
            return step >= at.steps
        if at.epochs is not None:
            return timeline.place(step).epoch >= at.epochs
        return at.tokens is not None and samples_after(step) * tokens >= at.tokens  # a rule refuses seconds

    return reached
