"""A TPU by way of torch_xla, which is in the worker image made for it only: what is different there, in one place.

Nothing is computed when it is asked for: operations are noted down until somebody needs a number or the step is over, and
what was noted is compiled and run as one.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.part import Part


def first_tpu(ranks: int) -> torch.device:
    """The TPU of this process; with PJRT_DEVICE=CPU the same program on a CPU. Raises SpecProblem when there is none."""
    if ranks > 1:
        raise SpecProblem("resources.device is tpu, which one process uses; set distributed.strategy to single")
    wanted = os.environ.get("PJRT_DEVICE", "TPU")  # asked before torch_xla, which falls back to a CPU and says so there
    try:
        xla = _xla()
        device: torch.device = xla.device()
        found = xla.real_devices()
    except (ImportError, RuntimeError) as error:
        raise SpecProblem(
            f"resources.device is tpu, but this worker has none that torch_xla can use ({error}); run it in the image worker-tpu"
        ) from error
    if not any(name.startswith(wanted) for name in found):
        raise SpecProblem(f"resources.device is tpu, but torch_xla found {', '.join(found)} only; set PJRT_DEVICE on the worker")
    return device


def is_tpu(device: torch.device) -> bool:
    return device.type == "xla"


def exact_products() -> None:
    """A TPU multiplies fp32 in bf16 unless it is told not to."""
    backends = import_module("torch_xla.backends")
    if backends.get_mat_mul_precision() != "highest":
        logging.getLogger("torch_xla.backends").setLevel(logging.ERROR)  # it warns of any choice but its own
        backends.set_mat_mul_precision("highest")


def moved(model: nn.Module, device: torch.device) -> nn.Module:
    """The model on its device, in place. Going to a TPU makes new weights: those that several layers share are shared again."""
    shared: dict[int, list[str]] = defaultdict(list)
    for name, param in model.named_parameters(remove_duplicate=False):
        shared[id(param)].append(name)
    model.to(device)
    for first, *others in shared.values():
        for name in others:
            owner, _, key = name.rpartition(".")
            setattr(model.get_submodule(owner), key, model.get_parameter(first))
    return model


def suited(device: torch.device, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, told what a TPU has: no fused kernels, and counts of steps that stay there, so that no step waits for one."""
    if is_tpu(device):
        for group in optimizer.param_groups:
            group |= {key: value for key, value in (("fused", None), ("foreach", False), ("capturable", True)) if key in group}
    return optimizer


class Noise:
    """The stream of random numbers of a TPU."""

    def __init__(self, seed: int) -> None:
        self._model = import_module("torch_xla.core.xla_model")
        self._model.set_rng_state(seed)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def values(self) -> dict[str, Any]:
        return {"state": int(self._model.get_rng_state())}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        if values:  # an earlier part of the run may have had no TPU
            self._model.set_rng_state(values["state"])


def noise_part(device: torch.device, seed: int) -> Part:
    """Streams of random numbers that the checkpoint keeps beside those of the host, by name."""
    return Part({"tpu": Noise(seed)}) if is_tpu(device) else Part()


def end_of_step(device: torch.device) -> Callable[[], None] | None:
    """What a device must hear after each step: what was noted down is to run. None where nothing waits to be told."""
    return _xla().sync if is_tpu(device) else None


def _xla() -> ModuleType:
    return import_module("torch_xla")
