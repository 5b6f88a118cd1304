"""Running statistics of BatchNorm, computed anew over the training split: those of averaged weights are not averages."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn

from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.world import World


@torch.no_grad()
def renew(
    model: nn.Module,
    says: Callable[[torch.Tensor], torch.Tensor],
    inputs: Iterable[torch.Tensor],
    autocast: Callable[[], AbstractContextManager[object]],
    world: World,
) -> None:
    """As `torch.optim.swa_utils.update_bn`: means over all batches, in training mode. Parts of the world see their parts of each
    batch, and their means are averaged. Leaves random streams where they were, and norms that are frozen as they are.
    """
    norms = [
        m for m in model.modules() if isinstance(m, AnyBatchNorm) and m.track_running_stats and not getattr(m, "held", False)
    ]
    momenta, training = [norm.momentum for norm in norms], model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches instead of a moving one
    model.train()
    on_gpu = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(on_gpu):
        for part in inputs:
            if len(part):
                with autocast():
                    says(part)
    model.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                world.sum(statistic).div_(world.data_parts)
