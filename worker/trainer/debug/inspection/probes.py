"""Places inside the model, looked at with the same samples each time."""

import difflib
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import nn

from stoker.events import Metrics
from stoker.spec.debug.inspection import Probe
from worker.trainer.errors import SpecProblem
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.journal import Journal

MeanLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs and targets to the mean loss that training minimises."""


def check_paths(probes: Iterable[Probe], model: nn.Module) -> None:
    """Raises SpecProblem naming the modules whose paths are nearest to one that is not there."""
    known = [name for name, _ in model.named_modules() if name]
    for index, probe in enumerate(probes):
        if probe.module not in known:
            near = difflib.get_close_matches(probe.module, known, 5, 0.4) or known[:5]
            raise SpecProblem(
                f"debug.probes[{index}].module: the model has no module {probe.module}; there are {', '.join(near)}, "
                "and all others in model_summary.txt (debug.model_summary)"
            )


@dataclass(frozen=True)
class Look:
    """One probe. The model runs once, in evaluation mode, and gradients of its weights stay what they are."""

    probe: Probe
    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor
    mean_loss: MeanLoss
    autocast: Callable[[], AbstractContextManager[object]]
    artifacts: ArtifactWriter
    journal: Journal

    @property
    def name(self) -> str:
        return f"{self.probe.module}.{self.probe.what}"

    def __call__(self, step: int) -> None:
        if not self.artifacts.is_lead:
            return
        values = self.look()
        numbers = values.double()
        spread = {"mean": numbers.mean(), "std": numbers.std(correction=0), "min": numbers.min(), "max": numbers.max()}
        said = {f"probe/{self.name}.{key}": value.item() for key, value in spread.items()}
        self.journal.write(Metrics(step=step, values=said, t=time.time()))
        if self.probe.tensors:
            tensors = {"value": values.contiguous().cpu(), "inputs": self.inputs.contiguous().cpu()}
            self.artifacts.keep(f"probes/{self.name}/step-{step:08d}.safetensors", lambda path: save_file(tensors, path))

    def look(self) -> torch.Tensor:
        """What the probe sees now. Raises SpecProblem for a module that is never called or gives no tensor."""
        seen: list[torch.Tensor] = []

        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            value = inputs[0] if self.probe.what == "input" and inputs else output
            if isinstance(value, torch.Tensor) and not seen:
                seen.append(value)

        was_training, handle = self.model.training, self.model.get_submodule(self.probe.module).register_forward_hook(hook)
        self.model.eval()
        try:
            with torch.set_grad_enabled(self.probe.what == "gradient"), self.autocast():
                outputs = self.model(self.inputs)
        finally:
            handle.remove()
            self.model.train(was_training)
        if not seen:
            raise SpecProblem(
                f"debug.probes: {self.probe.module} is never called, or gives no tensor; probe what is inside of it"
            )
        return self._gradient(seen[0], outputs) if self.probe.what == "gradient" else seen[0].detach()

    def _gradient(self, seen: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        if not seen.requires_grad:
            raise SpecProblem(f"debug.probes: the output of {self.probe.module} follows from no weight that learns")
        (gradient,) = torch.autograd.grad(
            self.mean_loss(outputs.float(), self.targets), [seen], allow_unused=True, materialize_grads=True
        )
        return gradient
