"""The model with its first weights, the loss, and the strategy that spreads both over ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from stoker.plan.known import Known
from stoker.spec.derived.arithmetic import Sizes
from stoker.spec.distributed import Distributed
from worker.trainer.activation_checkpointing import recomputing
from worker.trainer.assembly.context import Context
from worker.trainer.assembly.data import BuiltData
from worker.trainer.debug.inspection import show_model
from worker.trainer.distributed import Replica, decided, replicate
from worker.trainer.gan.passes import learner, with_rival
from worker.trainer.initialization import begin
from worker.trainer.initialization.finetune import finetuned
from worker.trainer.loss import Reading, SummedLoss, in_chunks, reading_of
from worker.trainer.measure.flops import MetaModel
from worker.trainer.model import build_model
from worker.trainer.optimizer.multi_optimizer import check_all_patterns
from worker.trainer.precision import Arithmetic, narrowed
from worker.trainer.regularization import check_penalties
from worker.trainer.regularization.spectral_norm import bound
from worker.trainer.runtime.names import weights_of
from worker.trainer.runtime.objective import Objective
from worker.trainer.runtime.tpu import moved
from worker.trainer.task.criterion import build_criterion
from worker.trainer.task.multi_task import with_heads
from worker.trainer.training.distillation import build_objective
from worker.trainer.training.dynamic_batch import fits_memory


@dataclass(frozen=True)
class BuiltModel:
    model: nn.Module
    loss: SummedLoss
    reading: Reading
    """How metrics see outputs and targets."""
    meta_model: MetaModel
    """A copy without numbers, to count what a sample costs."""
    parameters: int
    """Trainable parameters of the whole model."""


@dataclass(frozen=True)
class BuiltReplica:
    """The model as this rank holds it: whole, or the part that the strategy left to it."""

    spec: Distributed
    """The strategy; `auto` is decided."""
    model: nn.Module
    replica: Replica
    objective: Objective
    """Model and loss as one module, in the form that passes differentiate."""
    arithmetic: Arithmetic
    weights: Sequence[tuple[str, nn.Parameter]]
    """Trainable weights of this rank by name."""

    @property
    def params(self) -> list[nn.Parameter]:
        return [weight for _, weight in self.weights]


def init_model(context: Context, data: BuiltData) -> BuiltModel:
    """The model at step 0, before any rank cuts it. Raises SpecProblem or DataProblem."""
    context.journal.phase("building_model")
    spec, about, world = context.spec, data.dataset.about, context.world
    torch.manual_seed(context.seeds.weights)
    text, vocabulary = about.codec is not None, about.vocabulary
    built = build_model(spec.model, about.shape, data.width, text=text, vocabulary=vocabulary, padding=about.padding)
    model = narrowed(with_heads(spec.task, moved(built, world.device), about), spec.precision)
    begin(spec.initialization, model, context.given, about.codec, context.journal)
    finetuned(spec.initialization.finetune, model)
    model = bound(spec.regularization.spectral_norm, model)
    loss = build_criterion(data.goal, spec, data.outputs, data.dataset, classes=context.aim.classes, model=model).to(world.device)
    meta_model = MetaModel(model, data.dataset.train.slice(0, 1, torch.device("cpu"))[0])
    show_model(spec.debug, model, meta_model, context.artifacts)
    check_all_patterns(spec, weights_of(model))
    check_penalties(spec.regularization, weights_of(model))
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return BuiltModel(model, loss, reading_of(loss), meta_model, parameters)


def spread(context: Context, data: BuiltData, built: BuiltModel) -> BuiltReplica:
    """The model over ranks, as the strategy of the spec asks. Raises SpecProblem."""
    spec, world, taught = context.spec, context.world, context.taught
    arithmetic = Arithmetic(spec.precision, world)
    chosen = decided(spec, _known(data), world, context.journal, 0 if taught is None else taught.bytes)
    model = recomputing(chosen.activation_checkpointing, built.model)
    objective = build_objective(
        spec.training.distillation,
        learner(model),
        built.loss,
        taught=taught,
        about=data.dataset.about,
        sample=data.dataset.train.slice(0, 1, world.device)[0],
        world=world,
    )
    objective = in_chunks(data.goal, objective)
    replica = replicate(chosen.distributed, objective, world, late=fits_memory(spec.training.dynamic_batch))
    replica = with_rival(chosen.distributed, model, built.loss, world, replica)
    return BuiltReplica(chosen.distributed, model, replica, objective, arithmetic, weights_of(model))


def _known(data: BuiltData) -> Known:
    """What the plan starts from, with the sizes that reading found."""
    dataset = data.dataset
    sizes = Sizes(len(dataset.train), len(dataset.validation), len(dataset.test))
    per_sample, text = max(1, dataset.train.tokens_per_sample), dataset.about.codec is not None
    items = (sizes.train + sizes.validation + sizes.test) * per_sample
    return Known(dataset.about.shape, data.width, sizes, items, text, False, dataset.about.vocabulary)
