"""What a generator has learned to make, left behind when a run ends."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save_file

from stoker.spec.model import GAN
from stoker.spec.task import Generation, Task
from worker.trainer.data import Dataset, Description, noise
from worker.trainer.model import GanModel
from worker.trainer.runtime.artifact import ArtifactWriter
from worker.trainer.runtime.part import Part

AT_ONCE = 256


@torch.no_grad()
def draw(model: GanModel, spec: GAN, about: Description, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, latent_dim) noise and (count, *shape) samples as they would stand in the data set, the same for one seed.

    The model is in evaluation mode.
    """
    device = next(model.parameters()).device
    given = noise(f"{seed}/samples", np.arange(count), spec.latent_dim, spec.latent)
    made = [model(part.to(device)).cpu() for part in torch.split(given, AT_ONCE)]
    samples = torch.cat(made).view(-1, *about.shape) if made else torch.empty(0, *about.shape)
    return given, samples if about.scaling is None else about.scaling.undo(samples)


def build_samples(task: Task, spec: object, model: torch.nn.Module, data: Dataset, artifacts: ArtifactWriter, seed: int) -> Part:
    """samples.safetensors with `samples` and the `noise` they are made of; samples.png beside it, where they are pictures."""
    if not isinstance(task, Generation) or not isinstance(model, GanModel) or not isinstance(spec, GAN) or task.samples == 0:
        return Part()
    gan_model, network = model, spec

    def leave(step: int, reason: str) -> None:
        gan_model.eval()
        given, samples = draw(gan_model, network, data.about, task.samples, seed)
        gan_model.train()
        tensors = {"noise": given, "samples": samples.contiguous()}
        artifacts.keep("samples.safetensors", lambda path: save_file(tensors, path, {"step": str(step)}))
        if len(data.about.shape) == 3 and data.about.shape[0] in (1, 3):
            bounds = _bounds(data)
            artifacts.keep("samples.png", lambda path: Image.fromarray(_sheet(samples, bounds)).save(path, "PNG"))

    return Part(finish_hooks=(leave,))


def _bounds(data: Dataset) -> tuple[float, float]:
    """The smallest and the largest number of the training samples, as they stand in the data set."""
    ends = data.train.extremes()
    ends = ends if data.about.scaling is None else data.about.scaling.undo(ends)
    return float(ends.min()), float(ends.max())


def _sheet(samples: torch.Tensor, bounds: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Pictures in rows, as many in a row as there are rows: (height, width), or (height, width, 3)."""
    low, high = bounds
    count, channels, height, width = samples.shape
    side = int(np.ceil(np.sqrt(count)))
    rows = -(-count // side)
    values = ((samples - low) / (high - low or 1.0)).clamp(0, 1) * 255
    sheet = torch.zeros(rows * side, channels, height, width)
    sheet[:count] = values.round()
    whole = sheet.view(rows, side, channels, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, side * width, channels)
    pixels: npt.NDArray[np.uint8] = whole.to(torch.uint8).numpy()
    return pixels[:, :, 0] if channels == 1 else pixels
