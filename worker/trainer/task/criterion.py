"""The loss that a task, its data and the weights of its samples ask for together."""

from torch import nn

from stoker.spec import JobSpec
from stoker.spec.loss import Contested, Loss
from stoker.spec.task import MaskedLM
from worker.trainer.data import Dataset
from worker.trainer.errors import SpecProblem
from worker.trainer.loss import GanLoss, SummedLoss, build_loss, build_masked_loss, build_weighted_loss
from worker.trainer.model import GanModel
from worker.trainer.task.multi_task import join_losses


def build_criterion(
    goal: Loss | None, spec: JobSpec, outputs: int, data: Dataset, *, classes: bool, model: nn.Module
) -> SummedLoss:
    """`goal`: None where each task has a loss of its own; `outputs`: what the data set has to tell apart. Raises SpecProblem."""
    if goal is None:
        return join_losses(spec.task, data.about, data.train.counted)
    if isinstance(model, GanModel):
        if not isinstance(goal, Contested):
            raise SpecProblem("loss.type: two networks with opposite aims need non_saturating, hinge or wasserstein")
        return GanLoss(goal, model.judging)
    if isinstance(spec.task, MaskedLM):
        return build_masked_loss(goal, outputs, data.train.counted)
    if spec.data.sample_weight_column is None:
        return build_loss(goal, outputs, data.train.counted)
    return build_weighted_loss(goal, outputs, data.train.counted, classes=classes)
