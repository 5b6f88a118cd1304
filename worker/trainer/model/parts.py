"""Activations, normalisations and initialisation that several architectures share."""

from typing import assert_never

import torch
from torch import nn
from torch.nn import functional as F

from stoker.spec.model.parts import Activation, BatchNorm, LayerNorm, RMSNorm
from worker.trainer.model.init import initialize as initialize


class ReLUSquared(nn.Module):
    """max(0, x)^2 (So et al. 2021)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x).square()


def build_activation(kind: Activation) -> nn.Module:
    match kind:
        case "relu":
            return nn.ReLU()
        case "gelu":
            return nn.GELU()
        case "gelu_tanh":
            return nn.GELU(approximate="tanh")
        case "silu":
            return nn.SiLU()
        case "tanh":
            return nn.Tanh()
        case "sigmoid":
            return nn.Sigmoid()
        case "leaky_relu":
            return nn.LeakyReLU()
        case "elu":
            return nn.ELU()
        case "relu_squared":
            return ReLUSquared()
        case "relu6":
            return nn.ReLU6()
        case "selu":
            return nn.SELU()
        case "mish":
            return nn.Mish()
        case "softplus":
            return nn.Softplus()
        case "hardswish":
            return nn.Hardswish()
        case "identity":
            return nn.Identity()
        case _:
            assert_never(kind)


class BatchNormAny(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of (batch, channels, ...) that survives a batch of one value.

    One value has no variance, and the last batch of an epoch may have one sample: it is normalised by the running
    statistics and does not move them. Where there are none, it is its own mean, and the shift is all that is left.
    """

    held: bool = False
    """Whether it normalises by its running statistics while it trains, and leaves them as they are."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions will do."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        alone = input.numel() // input.shape[1] < 2
        if alone and self.running_mean is None:
            nothing = input - input
            return nothing if self.bias is None else nothing + self.bias.view(1, -1, *(1,) * (input.dim() - 2))
        if self.training and (alone or holds(self)):
            return _by_statistics(self, input)
        return super().forward(input)


class SyncedBatchNorm(nn.SyncBatchNorm):
    """Batch normalisation over the batches of all ranks. Where the model is only counted, no rank answers."""

    held: bool = False
    """As of the other; what normalises by statistics that stand asks no rank."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and holds(self):
            return _by_statistics(self, input)
        if input.device.type == "cuda":
            return super().forward(input)
        return nn.modules.batchnorm._BatchNorm.forward(self, input)


HeldNorm = BatchNormAny | SyncedBatchNorm
"""Every batch norm of a model."""


def holds(norm: HeldNorm) -> bool:
    """Whether its running statistics stay as they are."""
    return norm.held and norm.running_mean is not None


def _by_statistics(norm: HeldNorm, input: torch.Tensor) -> torch.Tensor:
    return F.batch_norm(input, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def build_batch_norm(spec: BatchNorm, features: int) -> nn.Module:
    """Of (batch, features, ...)."""
    kind = SyncedBatchNorm if spec.sync else BatchNormAny
    return kind(features, spec.eps, spec.momentum, spec.affine, spec.track_running_stats)


def build_normalization(spec: BatchNorm | LayerNorm | RMSNorm, features: int) -> nn.Module:
    """Over the last dimension of (..., features); batch: over the batch, of (batch, features)."""
    match spec:
        case BatchNorm():
            return build_batch_norm(spec, features)
        case LayerNorm():
            return nn.LayerNorm(features, spec.eps, bias=spec.bias)
        case RMSNorm():
            return nn.RMSNorm(features, spec.eps)
        case _:
            assert_never(spec)


def shared_cast(x: torch.Tensor) -> torch.Tensor:
    """What several products read: under autocast one copy in its format, where each would make and keep its own."""
    device = x.device.type
    if x.is_meta or not torch.is_autocast_enabled(device):  # a model that is only counted is on no device with an autocast
        return x
    return x.to(torch.get_autocast_dtype(device))
