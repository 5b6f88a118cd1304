"""Precision spec into the numbers of the model, the context that forward passes run in, and the scale of the loss."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, assert_never

import torch
from torch import nn

from stoker.spec.precision import DynamicScale, LossScale, Precision, StaticScale
from worker.trainer.errors import Diverged, SpecProblem
from worker.trainer.runtime.compat import AnyBatchNorm
from worker.trainer.runtime.part import Part
from worker.trainer.runtime.tpu import exact_products, is_tpu
from worker.trainer.runtime.world import World

LEAST_SCALE = 2.0**-40
"""A scale that fell so far was not what made gradients overflow."""


class Scaler(Protocol):
    """Keeps small gradients from vanishing in a narrow number format: the loss is scaled up, gradients are scaled down again."""

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        """What the summed loss is multiplied by before its backward pass, from what it would be multiplied by without scaling."""

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Once per step, when all gradients are there."""

    @property
    def overflowed(self) -> bool:
        """Whether a gradient of this step, of any rank, is no number, so that the weights stay where they are."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the weights, unless a gradient overflowed."""

    def update(self) -> None:
        """Once per step, at its end."""


class NoScaler:
    overflowed = False

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        return scale

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        return

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def update(self) -> None:
        return


class LossScaler:
    """The rules of `torch.amp.GradScaler`, for any device, for gradients in fp16 too, and with one answer for all ranks.

    Whether a gradient overflowed is asked of the device in each step: fused optimizers that could be told on the device leave
    the momentum of a skipped first step uninitialised (PyTorch 2.13).
    """

    def __init__(self, spec: LossScale, world: World) -> None:
        self._spec, self._world = spec, world
        self.scale = spec.init_scale if isinstance(spec, DynamicScale) else spec.scale
        self.clean = 0
        """Steps since the scale changed or a gradient overflowed."""
        self.skipped = 0
        """Steps so far that moved no weight."""
        self.overflowed = False

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        return scale * self.scale

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        gradients = [own(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients = [gradient for gradient in gradients if gradient.numel()]
        overflow = torch.zeros((), device=self._world.device)
        if gradients:
            largest = torch.stack(torch._foreach_norm(gradients, math.inf, dtype=torch.float32))
            overflow = (~largest.isfinite()).any().to(overflow)
            torch._foreach_mul_(gradients, 1.0 / self.scale)
        self.overflowed = self._world.most(overflow).item() > 0

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        if not self.overflowed:
            optimizer.step()

    def update(self) -> None:
        """Raises Diverged when no scale makes gradients finite."""
        self.skipped += self.overflowed
        self.clean = 0 if self.overflowed else self.clean + 1
        match self._spec:
            case StaticScale():
                return
            case DynamicScale(growth_factor=growth, backoff_factor=backoff, growth_interval=interval):
                if self.overflowed:
                    self.scale *= backoff
                elif self.clean == interval:
                    self.clean = 0
                    self.scale = grown if (grown := self.scale * growth) <= torch.finfo(torch.float32).max else self.scale
            case _:
                assert_never(self._spec)
        if self.scale < LEAST_SCALE:
            raise Diverged(
                f"gradients are not finite even at a loss scale of {self.scale:g}; lower optimizer.lr, or train in bf16_mixed or fp32"
            )

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"scale": self.scale, "clean": self.clean, "skipped": self.skipped}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        if values:  # an earlier part of the run may have had no scale
            self.scale, self.clean, self.skipped = values["scale"], values["clean"], values["skipped"]


def own(gradient: torch.Tensor) -> torch.Tensor:
    """This rank's part of a gradient that is sharded, or the whole of one that is not."""
    local: torch.Tensor = getattr(gradient, "_local_tensor", gradient)
    return local


class Arithmetic:
    """How one run computes. Sets what PyTorch keeps for the whole process."""

    def __init__(self, spec: Precision, world: World) -> None:
        """Raises SpecProblem for a format that this machine does not have."""
        self._products, self._device = _products(spec), world.device.type
        if world.device.type == "cuda":
            _use_products(spec)
        if is_tpu(world.device):
            exact_products()
        scale = spec.loss_scale or spec.usual_scale
        self._loss_scaler = None if scale is None else LossScaler(scale, world)
        self.scaler: Scaler = self._loss_scaler or NoScaler()

    def scaled(self, scale: torch.Tensor) -> torch.Tensor:
        return self.scaler.scaled(scale)

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self._products is None else torch.autocast(self._device, self._products)

    def part(self) -> Part:
        """What the log reports and the checkpoint keeps of the loss scaler, where there is one."""
        scaler = self._loss_scaler
        if scaler is None:
            return Part()
        gauges = {
            "train/loss_scale": lambda: torch.tensor(scaler.scale, dtype=torch.float64),
            "train/skipped_steps": lambda: torch.tensor(scaler.skipped),
        }
        return Part({"loss_scale": scaler}, gauges)


def _products(spec: Precision) -> torch.dtype | None:
    """The format of products where it is another one than that of the weights."""
    match spec.mode:
        case "fp32" | "tf32" | "bf16_pure" | "fp16_pure":
            return None
        case "bf16_mixed":
            return torch.bfloat16
        case "fp16_mixed":
            return torch.float16
        case "fp8":
            raise SpecProblem("precision.mode: this version does not build fp8; use bf16_mixed")
        case _:
            assert_never(spec.mode)


def _use_products(spec: Precision) -> None:
    """What a GPU does with fp32 products: PyTorch's own default rounds those of convolutions to tf32."""
    if spec.mode.startswith("bf16") and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise SpecProblem(
            f"precision.mode: this GPU has no bfloat16, which begins with compute capability 8.0; use fp16_mixed, not {spec.mode}"
        )
    torch.set_float32_matmul_precision("high" if spec.mode == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = spec.mode == "tf32"


def narrowed(model: nn.Module, spec: Precision) -> nn.Module:
    """The same model, in the number format that its weights have throughout: for pure modes 16 bits wide, but for BatchNorm,
    whose running statistics would stand still. It takes numbers in fp32 and answers in fp32.
    """
    if not spec.pure:
        return model
    dtype = torch.bfloat16 if spec.mode == "bf16_pure" else torch.float16
    for module in model.modules():
        if not isinstance(module, AnyBatchNorm):
            _narrow(module, dtype)
    model.register_forward_pre_hook(lambda _, given: tuple(_as(value, torch.float32, dtype) for value in given))
    model.register_forward_hook(lambda _, given, out: _as(out, dtype, torch.float32))
    return model


def _narrow(module: nn.Module, dtype: torch.dtype) -> None:
    """In place, so that weights that several modules share stay shared."""
    for param in module.parameters(recurse=False):
        param.data = param.data.to(dtype)
    for name, buffer in module.named_buffers(recurse=False):
        if buffer.is_floating_point():
            setattr(module, name, buffer.to(dtype))


def _as(value: Any, old: torch.dtype, new: torch.dtype) -> Any:
    """Models may take and give other things beside tensors, hence `Any`."""
    return value.to(new) if isinstance(value, torch.Tensor) and value.dtype == old else value
